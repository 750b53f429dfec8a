"""`bastide image bootstrap`, with a mmdebstrap that only says what it was asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bastide.cli.grammar import CommandError, parse
from bastide.cli.verbs.bootstrap import COMMAND


class Images:
    def __init__(self) -> None:
        self.query: dict[str, Any] = {}
        self.archive = b""

    def create_from(self, query: dict[str, Any], archive: Iterable[bytes]) -> list[dict[str, str]]:
        self.query, self.archive = query, b"".join(archive)
        return [{"status": "sha256:0"}]


class Client:
    def __init__(self) -> None:
        self.images = Images()


def bootstrap(client: Any, *words: str) -> int:
    return COMMAND.run(client, parse("image bootstrap", COMMAND, list(words)))


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a mmdebstrap of our own on the PATH."""
    path = folder / "mmdebstrap"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


# The archive is the first argument that ends in .tar.
TELL = 'for word; do case $word in *.tar) echo "$*" > "$word" ;; esac; done'


@pytest.mark.parametrize(
    ("words", "suite", "name"),
    [
        (["debian:12"], "bookworm", ("debian", "12")),
        (["debian:trixie"], "trixie", ("debian", "trixie")),
        (["--name", "base:1", "ubuntu:24.04"], "noble", ("base", "1")),
        (["--name", "base", "debian:13"], "trixie", ("base", "")),
    ],
)
def test_makes_the_suite_and_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], suite: str, name: tuple[str, str]
) -> None:
    program(tmp_path, monkeypatch, TELL)
    client = Client()
    assert bootstrap(client, "--include", "python3,git", *words) == 0
    asked = client.images.archive.decode().split()
    assert suite in asked
    assert "--include=python3,git" in asked
    assert (client.images.query["repo"], client.images.query["tag"]) == name


@pytest.mark.parametrize("image", ["debian:7", "debian", "alpine:3"])
def test_refuses_what_it_does_not_know(image: str) -> None:
    with pytest.raises(CommandError, match=r"^cannot bootstrap .*: choose one of debian:11, "):
        bootstrap(Client(), image)


def test_a_failure_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "echo 'I: begin' >&2; echo 'E: no mirror answers' >&2; exit 1")
    client = Client()
    with pytest.raises(CommandError, match=r"^mmdebstrap could not make bookworm: no mirror answers$"):
        bootstrap(client, "debian:12")
    assert not client.images.query


def test_without_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match=r"^mmdebstrap is not installed: apt-get install mmdebstrap$"):
        bootstrap(Client(), "debian:12")

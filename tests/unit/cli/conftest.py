"""The command line against a pretended daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.pretender import Pretender

from bastide.cli.main import main


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Bastide = Callable[..., Done]


@pytest.fixture
def pretender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretender]:
    """A pretended daemon that BASTIDE_HOST names."""
    made = Pretender(tmp_path / "d.sock")
    monkeypatch.setenv("BASTIDE_HOST", made.url)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("DOCKER_API_VERSION", raising=False)
    yield made
    made.close()


@pytest.fixture
def bastide(capfd: pytest.CaptureFixture[str]) -> Bastide:
    """Runs a command line in this process."""

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(words)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run

"""The corpus of Dockerfiles built by a real daemon: the images that Debian's docker makes of them, recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.dockerfiles import Case, cases, differences, taken_apart
from tests.image_schemas import check_archive
from tests.living import Daemon

CASES = cases()


@pytest.fixture(scope="module")
def base(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The base image as an archive."""
    return saved(daemon, "busybox", tmp_path_factory.mktemp("base"))


def saved(daemon: Daemon, name: str, folder: Path) -> bytes:
    path = folder / "saved.tar"
    daemon.ok("save", "--output", str(path), name)
    return path.read_bytes()


@pytest.mark.parametrize("case", [case for case in CASES if case.golden("image").exists()], ids=lambda c: c.name)
def test_the_image_is_dockers(case: Case, daemon: Daemon, base: bytes, tmp_path: Path) -> None:
    context = case.lay_out(tmp_path / "context")
    name = f"corpus-{case.name}"
    daemon.ok("build", "--network=none", f"--tag={name}", *case.flags(), str(context))
    archive = saved(daemon, name, tmp_path)
    check_archive(archive)
    found = taken_apart(archive, base)
    expected = json.loads(case.golden("image").read_text())
    expected.pop("made by")
    for path in case.left_behind:
        del expected["tree"][path]
    assert not list(differences(expected, found))
    first = daemon.ok("inspect", "--format={{.Id}}", "--type=image", name)
    again = daemon.ok("build", "--network=none", "--quiet", *case.flags(), str(context))
    assert again == first, "the cache gives the same image again"
    daemon.ok("rmi", "-f", name)


@pytest.mark.parametrize("case", [case for case in CASES if case.fails is not None], ids=lambda c: c.name)
def test_the_error_is_told(case: Case, daemon: Daemon, tmp_path: Path) -> None:
    context = case.lay_out(tmp_path / "context")
    before = daemon.ok("images", "-aq", "--no-trunc")
    done = daemon.cli("build", "--network=none", *case.flags(), str(context))
    assert done.returncode
    assert case.fails is not None
    assert case.fails in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert daemon.ok("images", "-aq", "--no-trunc") == before
    assert not daemon.ok("ps", "-aq")

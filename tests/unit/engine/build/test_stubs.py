"""What a start makes to mount on, and how it goes away again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bastide.engine.build.stubs import Stubs


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A root as it is before a start, and what changed, both empty."""
    for name in ("root", "upper"):
        (tmp_path / name).mkdir()
    return tmp_path / "root", tmp_path / "upper"


def stubs(root: Path, *targets: str) -> Stubs:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return Stubs(fd, targets)
    finally:
        os.close(fd)


def clean(found: Stubs, upper: Path) -> list[str]:
    fd = os.open(upper, os.O_PATH | os.O_DIRECTORY)
    try:
        found.remove(fd)
    finally:
        os.close(fd)
    return sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))


def fill(upper: Path, *names: str) -> None:
    for name in names:
        (upper / name).parent.mkdir(parents=True, exist_ok=True)
        (upper / name).mkdir() if name.endswith("/") else (upper / name).touch()


def test_what_was_missing_goes(trees: tuple[Path, Path]) -> None:
    root, upper = trees
    found = stubs(root, "/run/secrets/token", "/data")
    fill(upper, "etc/hosts", "etc/resolv.conf", "run/secrets/token", "data/", "proc/", "kept")
    assert clean(found, upper) == ["kept"]


def test_what_the_step_made_stays(trees: tuple[Path, Path]) -> None:
    root, upper = trees
    (root / "etc").mkdir()
    found = stubs(root, "/run/secrets/token")
    fill(upper, "etc/hosts", "etc/own", "run/mine")
    (upper / "etc" / "hostname").write_text("content")
    assert clean(found, upper) == ["etc", "etc/hostname", "etc/own", "run", "run/mine"]


def test_a_folder_that_only_the_start_changed_is_no_change(trees: tuple[Path, Path]) -> None:
    root, upper = trees
    (root / "etc").mkdir()
    (root / "srv").mkdir()
    found = stubs(root, "/srv/x")
    fill(upper, "etc/hosts", "srv/x")
    (upper / "srv").chmod(0o700)
    assert clean(found, upper) == ["srv"]


def test_targets_behind_links_are_found_where_they_are(trees: tuple[Path, Path]) -> None:
    root, upper = trees
    (root / "run").mkdir()
    (root / "var").mkdir()
    (root / "var" / "run").symlink_to("/run")
    found = stubs(root, "/var/run/secrets/token")
    fill(upper, "run/secrets/token")
    assert clean(found, upper) == []


def test_nothing_is_removed_through_a_link(trees: tuple[Path, Path], tmp_path: Path) -> None:
    root, upper = trees
    outside = tmp_path / "outside"
    (outside / "secrets").mkdir(parents=True)
    (outside / "secrets" / "token").touch()
    found = stubs(root, "/run/secrets/token")
    (upper / "run").symlink_to(outside)
    clean(found, upper)
    assert (outside / "secrets" / "token").exists()


def test_links_in_a_ring_end(trees: tuple[Path, Path]) -> None:
    root, upper = trees
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    assert clean(stubs(root, "/a/x"), upper) == []

"""COPY's rules of names, and links that would lead out of either tree."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bastide.engine.build.copying import Look, Placer
from bastide.engine.build.sources import Tree
from bastide.model.errors import BastideError, InvalidArgument

Copy = Callable[..., None]


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A source tree with some files, and an empty target."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d" / "sub").mkdir(parents=True)
    target.mkdir()
    (source / "f").write_text("f")
    (source / "d" / "x").write_text("x")
    (source / "d" / "sub" / "y").write_text("y")
    return source, target


def copy(trees: tuple[Path, Path], pattern: str, target: str, *exclude: str, parents: bool = False) -> None:
    source, into = (os.open(path, os.O_PATH | os.O_DIRECTORY) for path in trees)
    try:
        tree = Tree(source, exclude)
        placer = Placer(into, Look(uid=os.getuid(), gid=os.getgid()))
        try:
            for found in tree.find(pattern):
                placer.place(tree, found, target, unpack=False, parents=parents)
        finally:
            placer.close()
    finally:
        os.close(source)
        os.close(into)


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@pytest.mark.parametrize(
    ("pattern", "target", "expected"),
    [
        ("f", "/g", ["g"]),
        ("f", "/dir/", ["dir/f"]),
        ("/f", "/a/b/c", ["a/b/c"]),
        ("./d/../f", "/g", ["g"]),
        ("d", "/t", ["t/sub/y", "t/x"]),
        ("d/", "/t/", ["t/sub/y", "t/x"]),
        ("d/*", "/t/", ["t/x", "t/y"]),
        ("d/s*", "/t", ["t/y"]),
        (".", "/", ["d/sub/y", "d/x", "f"]),
        ("../../f", "/g", ["g"]),
    ],
)
def test_names(trees: tuple[Path, Path], pattern: str, target: str, expected: list[str]) -> None:
    copy(trees, pattern, target)
    assert names(trees[1]) == expected


def test_parents_and_excludes(trees: tuple[Path, Path]) -> None:
    copy(trees, "d/sub/y", "/p/", parents=True)
    copy(trees, "d", "/e", "sub")
    assert names(trees[1]) == ["e/x", "p/d/sub/y"]


@pytest.mark.parametrize("pattern", ["nothing", "d/nothing", "f/x", "n*", "d/*/z*"])
def test_what_is_not_there(trees: tuple[Path, Path], pattern: str) -> None:
    with pytest.raises(BastideError):
        copy(trees, pattern, "/x")


def test_links_of_the_source_stay_links_within_a_directory(trees: tuple[Path, Path]) -> None:
    (trees[0] / "d" / "link").symlink_to("/etc/passwd")
    copy(trees, "d", "/t")
    assert (trees[1] / "t" / "link").readlink() == Path("/etc/passwd")


def test_links_of_the_target_are_followed_inside_it(trees: tuple[Path, Path]) -> None:
    target = trees[1]
    (target / "real").mkdir()
    (target / "to-real").symlink_to("/real")
    (target / "file").write_text("old")
    (target / "to-file").symlink_to("file")
    copy(trees, "f", "/to-real/new")
    copy(trees, "f", "/to-file")
    copy(trees, "d", "/to-real")
    assert names(target) == ["file", "real/new", "real/sub/y", "real/x", "to-file", "to-real"]
    assert (target / "file").read_text() == "f"


@pytest.mark.parametrize("leads", ["/outside", "../outside", "../../../../../../../../{outside}", "{outside}"])
@pytest.mark.parametrize(
    ("pattern", "target"), [("f", "/evil/new"), ("f", "/evil/"), ("d", "/evil/a/b"), ("f", "/evil")]
)
def test_links_of_the_target_lead_nowhere_else(
    trees: tuple[Path, Path], tmp_path: Path, leads: str, pattern: str, target: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (trees[1] / "evil").symlink_to(leads.format(outside=str(outside).lstrip("/")))
    with contextlib.suppress(InvalidArgument):
        copy(trees, pattern, target)
    assert not list(outside.iterdir())


def test_a_link_that_became_a_directory_is_replaced_not_followed(trees: tuple[Path, Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (trees[1] / "t").mkdir()
    (trees[1] / "t" / "sub").symlink_to(outside)
    copy(trees, "d", "/t")
    assert names(trees[1]) == ["t/sub/y", "t/x"]
    assert not list(outside.iterdir())


def test_modes_times_and_hard_links_are_kept(trees: tuple[Path, Path]) -> None:
    source, target = trees
    (source / "d" / "x").chmod(0o4711)
    os.link(source / "d" / "x", source / "d" / "z")
    os.utime(source / "d" / "x", ns=(5, 1_500_000_000_000_000_001))
    copy(trees, "d", "/t")
    found = (target / "t" / "x").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_nlink) == (0o4711, 1_500_000_000_000_000_001, 2)


def test_digests_see_content_mode_and_names_but_not_times(trees: tuple[Path, Path]) -> None:
    root = os.open(trees[0], os.O_PATH | os.O_DIRECTORY)
    try:
        tree = Tree(root)
        (found,) = tree.find("d")
        first = tree.digest(found)
        os.utime(trees[0] / "d" / "x", (1, 1))
        assert tree.digest(found) == first
        seen = {first}
        for change in (
            lambda: (trees[0] / "d" / "x").write_text("other"),
            lambda: (trees[0] / "d" / "x").chmod(0o600),
            lambda: (trees[0] / "d" / "x").rename(trees[0] / "d" / "w"),
            lambda: (trees[0] / "d" / "l").symlink_to("a"),
            lambda: (trees[0] / "d" / "empty").mkdir(),
        ):
            change()
            seen.add(tree.digest(found))
        assert len(seen) == 6
    finally:
        os.close(root)

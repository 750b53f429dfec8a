"""Nothing in a tree leads out of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bastide.host.paths import lstat_below, open_in, read_in, root_of, stat_in


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("inside")
    (root / "up").symlink_to("../../../../../../../.." + str(tmp_path / "secret"))
    (root / "absolute").symlink_to("/a/b/file")
    (root / "folder").symlink_to("/a")
    (root / "loop").symlink_to("loop")
    (root / "magic").symlink_to("/proc/self/root" + str(tmp_path / "secret"))
    return root


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/a/b/file", b"inside"),
        ("a/b/file", b"inside"),
        ("../../a/b/file", b"inside"),
        ("absolute", b"inside"),
        ("folder/b/file", b"inside"),
        ("up", None),
        ("../secret", None),
        ("loop", None),
        ("magic", None),
        ("a", None),
        ("a/b/file/more", None),
    ],
)
def test_read(tree: Path, path: str, content: bytes | None) -> None:
    with root_of(tree) as root:
        assert read_in(root, path, 100) == content


def test_limit(tree: Path) -> None:
    with root_of(tree) as root:
        assert read_in(root, "a/b/file", 3) == b"ins"


def test_root_itself(tree: Path) -> None:
    with root_of(tree) as root:
        for path in ("", "/", "..", "../.."):
            found = stat_in(root, path)
            assert found is not None
            assert found.st_ino == tree.stat().st_ino


def test_descriptors_are_not_inherited(tree: Path) -> None:
    with root_of(tree) as root:
        fd = open_in(root, "a/b/file", os.O_RDONLY)
        assert not os.get_inheritable(fd)
        assert not os.get_inheritable(root)
        os.close(fd)


def test_nul(tree: Path) -> None:
    with root_of(tree) as root, pytest.raises(OSError, match="Invalid"):
        open_in(root, "a\0b")


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("a/b/file", True),
        ("up", True),
        ("loop", True),
        ("folder/b", False),
        ("folder/b/file", False),
        ("absent", False),
        ("a/b/file/more", False),
    ],
)
def test_lstat_below(tree: Path, path: str, there: bool) -> None:
    with root_of(tree) as root:
        assert (lstat_below(root, path) is not None) is there


def test_a_file_is_whole_when_its_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import itertools, pathlib, sys; from bastide.host.paths import write_whole\n"
        "for turn in itertools.count(): write_whole(pathlib.Path(sys.argv[1]), bytes([turn % 256]) * (8 << 20))"
    )
    for pause in (0.0, 0.003, 0.007, 0.011):
        with subprocess.Popen(
            [sys.executable, "-c", code, path], env={"PYTHONPATH": os.pathsep.join(sys.path)}
        ) as writer:
            while not path.exists():
                time.sleep(0.001)
            time.sleep(pause)
            writer.kill()
        content = path.read_bytes()
        assert content == content[:1] * (8 << 20)

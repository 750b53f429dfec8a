from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bastide.host.capabilities import NAMES, decode
from bastide.host.mounts import Mounted
from bastide.host.trees import Trash, measure, spread


def test_measure(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x" * 10_000)
    os.link(tmp_path / "folder" / "file", tmp_path / "again")
    (tmp_path / "link").symlink_to("/")
    size, inodes = measure(tmp_path)
    assert inodes == 3
    assert 10_000 <= size < 100_000
    assert measure(tmp_path / "absent") == (0, 0)


def test_spread(tmp_path: Path) -> None:
    """The flag is there where the file system knows it; elsewhere nothing happens."""
    known = spread(tmp_path)
    shown = subprocess.run(["lsattr", "-d", tmp_path], capture_output=True, text=True, check=False).stdout
    assert ("T" in shown.partition(" ")[0]) is known
    (tmp_path / "made").mkdir()
    assert spread(tmp_path) is known


def test_trash(tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash")
    trash.directory.mkdir()
    (trash.directory / "left").mkdir()
    (trash.directory / "left" / "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    trash.open()
    trash.put(tree)
    trash.put(tmp_path / "absent")
    assert not tree.exists()
    assert trash.emptied().wait(5)
    assert list(trash.directory.iterdir()) == []
    assert (outside / "keep").exists()


def test_mount_lines() -> None:
    line = r"42 27 254:0 /a\040b /mnt/a\040b\134c rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard"
    entry = Mounted(line)
    assert (entry.id, entry.root, entry.target) == (42, "/a b", "/mnt/a b\\c")
    assert entry.shared
    assert entry.peers == ["shared:1", "master:2"]
    assert (entry.kind, entry.options) == ("ext4", "rw,discard")
    assert not Mounted("1 0 0:1 / / rw - proc proc rw").shared


def test_capabilities() -> None:
    assert decode(0) == frozenset()
    assert decode(1 | 1 << 21) == {"CAP_CHOWN", "CAP_SYS_ADMIN"}
    assert decode((1 << 41) - 1) == set(NAMES)
    assert len(NAMES) == 41

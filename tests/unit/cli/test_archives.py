"""Hostile archives that come out of a container (ATTACKS 9, 10, 13, 17): nothing lands outside the target."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bastide.cli import archives
from bastide.cli.grammar import CommandError


def made(*entries: tuple[str, str, str]) -> bytes:
    """An archive of (name, kind, content or link target)."""
    output = io.BytesIO()
    kinds = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "node": tarfile.CHRTYPE}
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o4755
            if kind == "file":
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
            else:
                info.type, info.linkname = kinds[kind], content
                tar.addfile(info)
    return output.getvalue()


def unpack(data: bytes, target: Path, rename: Callable[[str], str] = lambda name: name) -> None:
    archives.unpack(iter([data[:700], data[700:]]), str(target), rename)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    return folder


def test_plain(target: Path) -> None:
    unpack(made(("a", "dir", ""), ("a/b", "file", "hello"), ("a/c", "link", "b"), ("a/d", "hard", "a/b")), target)
    assert (target / "a/b").read_text() == "hello"
    assert (target / "a/c").readlink() == Path("b")
    assert (target / "a/d").stat().st_ino == (target / "a/b").stat().st_ino
    assert not (target / "a/b").stat().st_mode & stat.S_ISUID, "a copy gains no set-user-id bit"


@pytest.mark.parametrize("name", ["../outside/x", "a/../../outside/x", "/../outside/x"])
def test_upwards_is_refused(target: Path, name: str) -> None:
    with pytest.raises(CommandError, match="outside of itself"):
        unpack(made((name, "file", "x")), target)
    assert list((target.parent / "outside").iterdir()) == []


def test_absolute_names_land_below(target: Path) -> None:
    unpack(made(("/etc/x", "file", "x")), target)
    assert (target / "etc/x").read_text() == "x"


@pytest.mark.parametrize("absolute", [False, True])
def test_a_planted_link_is_not_followed(target: Path, absolute: bool) -> None:
    link = str(target.parent / "outside") if absolute else "../outside"
    with pytest.raises(CommandError, match="behind something that is no folder"):
        unpack(made(("d", "link", link), ("d/x", "file", "x")), target)
    assert list((target.parent / "outside").iterdir()) == []


def test_a_file_replaces_a_link_instead_of_writing_through_it(target: Path) -> None:
    secret = target.parent / "outside" / "secret"
    secret.write_text("keep")
    unpack(made(("f", "link", "../outside/secret"), ("f", "file", "new")), target)
    assert secret.read_text() == "keep"
    assert (target / "f").read_text() == "new"


def test_a_hard_link_cannot_reach_out(target: Path) -> None:
    secret = target.parent / "outside" / "secret"
    secret.write_text("keep")
    with pytest.raises(CommandError):
        unpack(made(("h", "hard", "../outside/secret")), target)
    with pytest.raises(CommandError):
        unpack(made(("d", "link", "../outside"), ("h", "hard", "d/secret")), target)
    assert secret.stat().st_nlink == 1


def test_devices_are_left_out(target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unpack(made(("n", "node", "")), target)
    assert os.listdir(target) == []
    assert capfd.readouterr().err == "left out, a device: n\n"


def test_a_folder_is_not_replaced_by_a_file(target: Path) -> None:
    (target / "d").mkdir()
    with pytest.raises(CommandError, match="cannot overwrite directory 'd' with non-directory"):
        unpack(made(("d", "file", "x")), target)


def test_broken_archives(target: Path) -> None:
    data = made(("a", "file", "x" * 2000))
    with pytest.raises(CommandError, match="the archive is broken"):
        unpack(b"\xff" * 1024, target)
    with pytest.raises(CommandError, match="the archive is broken"):
        unpack(data[:1000], target)


def test_renamed(target: Path) -> None:
    unpack(made(("old", "dir", ""), ("old/x", "file", "1")), target, lambda name: "new" + name.removeprefix("old"))
    assert (target / "new/x").read_text() == "1"


def test_there_and_back(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "f").write_bytes(os.urandom(100_001))
    (source / "link").symlink_to("sub/f")
    os.link(source / "sub" / "f", source / "twin")
    os.mkfifo(source / "pipe")
    unpack(b"".join(archives.pack(archives.walk(str(source), "copy"))), target)
    assert (target / "copy/sub/f").read_bytes() == (source / "sub/f").read_bytes()
    assert (target / "copy/link").readlink() == Path("sub/f")
    assert (target / "copy/twin").stat().st_ino == (target / "copy/sub/f").stat().st_ino
    assert stat.S_ISFIFO((target / "copy/pipe").lstat().st_mode)

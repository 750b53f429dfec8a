"""Hostile and odd layers, unpacked for real (ATTACKS 9 to 13). The outcome is an error or a harmless result."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.images import archive
from bastide.images.archive import unpack_into, unpack_layer
from bastide.model.errors import BastideError, InvalidArgument

Member = tuple[str | bytes, dict[str, Any]]


def tar(*members: tuple[str, dict[str, Any]]) -> bytes:
    """A tar of `(name, fields)`; `data` is a file's content, `xattrs` go into the pax header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            data = fields.pop("data", b"")
            info.size, info.mode = len(data), 0o644
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in fields.pop("xattrs", {}).items()}
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def file(name: str, data: bytes = b"new", **more: Any) -> tuple[str, dict[str, Any]]:
    return name, {"data": data, **more}


def link(name: str, target: str) -> tuple[str, dict[str, Any]]:
    return name, {"type": tarfile.SYMTYPE, "linkname": target}


def hard(name: str, target: str) -> tuple[str, dict[str, Any]]:
    return name, {"type": tarfile.LNKTYPE, "linkname": target}


def folder(name: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **more}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A tree beside the target that must stay as it is."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "victim").write_text("untouched")
    (place / "victim").chmod(0o600)
    before = sorted(os.listdir(place))
    yield place
    assert sorted(os.listdir(place)) == before
    assert (place / "victim").read_text() == "untouched"
    assert stat.S_IMODE((place / "victim").stat().st_mode) == 0o600
    assert (place / "victim").stat().st_nlink == 1


@pytest.fixture
def layer(tmp_path: Path, outside: Path) -> Callable[..., Path]:
    """Unpacks members as one layer; gives its root."""
    count = 0

    def make(*members: tuple[str, dict[str, Any]], data: bytes | None = None) -> Path:
        nonlocal count
        count += 1
        target = tmp_path / f"layer{count}"
        target.mkdir()
        unpack_layer([data if data is not None else tar(*members)], target)
        return target

    return make


Make = Callable[..., Path]


@pytest.mark.parametrize("name", ["../victim", "a/../../victim", "../../../../../../etc/bastide-was-here", ".."])
def test_names_that_climb_out(layer: Make, name: str) -> None:
    with pytest.raises(InvalidArgument, match="out of its tree"):
        layer(file(name))


def test_absolute_names_are_the_images_own(layer: Make) -> None:
    root = layer(file("/etc/passwd"), file("//a//./b/../c"))
    assert (root / "etc/passwd").read_bytes() == b"new"
    assert (root / "a/c").read_bytes() == b"new"


def test_names_that_are_no_text(layer: Make) -> None:
    root = layer(("caf\udce9", {"data": b"x"}), ("new\nline", {"data": b"y"}))
    assert sorted(os.listdir(os.fsencode(root))) == [b"caf\xe9", b"new\nline"]


def test_over_long_component_is_an_error(layer: Make) -> None:
    with pytest.raises(OSError, match="too long"):
        layer(file("x" * 300))


@pytest.mark.parametrize("target", ["{outside}", "../outside", "/../../../../../..{outside}"])
def test_planted_link_as_ancestor(layer: Make, outside: Path, target: str) -> None:
    """Whatever the link says, it is followed inside the tree only."""
    planted = link("way", target.format(outside=outside))
    for attempt in (
        [file("way/victim")],
        [folder("way/new")],
        [folder("way")],
        [link("way/victim", "x")],
        [file("own"), hard("way/hard", "own")],
        [("way/.wh.victim", {})],
        [("way/.wh..wh..opq", {})],
        [("way/node", {"type": tarfile.FIFOTYPE})],
    ):
        with contextlib.suppress(OSError, BastideError):
            layer(planted, *attempt)


def test_hard_link_to_the_outside(layer: Make, outside: Path) -> None:
    for target in (f"{outside}/victim", "../outside/victim", "way/victim"):
        with pytest.raises((OSError, InvalidArgument)):
            layer(link("way", str(outside)), hard("stolen", target), file("stolen", b"overwritten"))


def test_hard_link_to_a_link_does_not_follow_it(layer: Make, outside: Path) -> None:
    root = layer(link("way", f"{outside}/victim"), hard("copy", "way"), file("copy", b"overwritten"))
    assert (root / "copy").read_bytes() == b"overwritten"
    assert (root / "way").is_symlink()


def test_file_through_a_link_replaces_the_link(layer: Make, outside: Path) -> None:
    root = layer(link("name", f"{outside}/victim"), file("name", b"own"))
    assert not (root / "name").is_symlink()
    assert (root / "name").read_bytes() == b"own"


def test_links_inside_the_tree_are_followed(layer: Make) -> None:
    root = layer(
        folder("usr"), folder("usr/lib"), link("lib", "usr/lib"), file("lib/a"), link("abs", "/usr"), file("abs/b")
    )
    assert (root / "usr/lib/a").read_bytes() == b"new"
    assert (root / "usr/b").read_bytes() == b"new"


def test_replacements_of_every_kind(layer: Make) -> None:
    makers = {
        "file": lambda: file("x", b"f"),
        "folder": lambda: folder("x"),
        "link": lambda: link("x", "nowhere"),
        "pipe": lambda: ("x", {"type": tarfile.FIFOTYPE}),
        "hard": lambda: hard("x", "other"),
    }
    for first in makers.values():
        for second in makers.values():
            inside = [file("x/inner/deep")] if first()[1].get("type") == tarfile.DIRTYPE else []
            root = layer(file("other", b"o"), first(), *inside, second())
            found = (root / "x").lstat()
            kind = second()[1].get("type")
            if kind == tarfile.DIRTYPE:
                assert stat.S_ISDIR(found.st_mode)
            elif kind == tarfile.LNKTYPE:
                assert (root / "x").read_bytes() == b"o"
            else:
                assert not stat.S_ISDIR(found.st_mode)


def test_directory_replaced_and_filled_again(layer: Make) -> None:
    """No descriptor of the directory that went away is used any more."""
    root = layer(folder("d"), file("d/old"), file("d", b"now a file"), folder("d"), file("d/new"))
    assert os.listdir(root / "d") == ["new"]


def test_whiteouts_become_the_overlays(layer: Make) -> None:
    root = layer(("etc/.wh.passwd", {}), folder("opt"), ("opt/.wh..wh..opq", {}), file("opt/kept"))
    found = (root / "etc/passwd").lstat()
    assert stat.S_ISCHR(found.st_mode)
    assert found.st_rdev == 0
    assert os.getxattr(root / "opt", "trusted.overlay.opaque") == b"y"
    assert (root / "opt/kept").exists()
    assert not (root / "opt/.wh..wh..opq").exists()


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..."])
def test_whiteouts_of_no_name(layer: Make, name: str) -> None:
    with pytest.raises(InvalidArgument, match="whiteout"):
        layer((name, {}))


def test_aufs_files_are_passed_over(layer: Make) -> None:
    root = layer((".wh..wh.aufs", {}), folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file("a"))
    assert os.listdir(root) == ["a"]


def test_whiteout_and_entry_of_one_name(layer: Make) -> None:
    root = layer(("a/.wh.f", {}), file("a/f"), ("a/.wh.d", {}), folder("a/d"), file("a/d/x"))
    assert (root / "a/f").read_bytes() == b"new"
    assert os.getxattr(root / "a/d", "trusted.overlay.opaque") == b"y"
    root = layer(file("a/f"), ("a/.wh.f", {}), folder("a/d"), ("a/.wh.d", {}))
    assert (root / "a/f").read_bytes() == b"new"
    assert os.getxattr(root / "a/d", "trusted.overlay.opaque") == b"y"


def test_attributes_that_speak_to_the_overlay_are_dropped(layer: Make) -> None:
    capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    root = layer(
        folder(
            "d", xattrs={"trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/etc", "user.overlay.opaque": "y"}
        ),
        file("f", xattrs={"trusted.x": "1", "user.note": "kept", "security.capability": capability}, uid=7, gid=8),
    )
    assert os.listxattr(root / "d") == []
    assert sorted(os.listxattr(root / "f")) == ["security.capability", "user.note"]
    assert os.getxattr(root / "f", "security.capability") == capability.encode("latin-1")


def test_modes_owners_times_and_nodes(layer: Make) -> None:
    root = layer(
        folder("./", mode=0o751, uid=5, gid=6, mtime=1_000_000_000),
        folder("d", mode=0o2755, uid=1, gid=2, mtime=1_100_000_000),
        file("d/s", mode=0o4755, mtime=1_200_000_000.25),
        ("d/null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
        ("d/pipe", {"type": tarfile.FIFOTYPE, "mode": 0o620, "gid": 9}),
        ("d/l", {"type": tarfile.SYMTYPE, "linkname": "/x", "uid": 3, "mtime": 1_300_000_000}),
    )
    found = root.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o751, 5, 6, 1_000_000_000)
    found = (root / "d").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o2755, 1, 2, 1_100_000_000)
    found = (root / "d/s").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid, found.st_mtime) == (0o4755, 0, 1_200_000_000.25)
    found = (root / "d/null").stat()
    assert (found.st_rdev, stat.S_IMODE(found.st_mode)) == (os.makedev(1, 3), 0o666)
    assert stat.S_ISFIFO((root / "d/pipe").stat().st_mode)
    found = (root / "d/l").lstat()
    assert (found.st_uid, found.st_mtime) == (3, 1_300_000_000)


def test_read_only_directory_is_filled_all_the_same(layer: Make) -> None:
    root = layer(folder("d", mode=0o000), file("d/x", mode=0o000))
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0
    assert (root / "d/x").read_bytes() == b"new"


def test_many_directories_and_links_between_them(layer: Make) -> None:
    members = [file(f"d{number}/f", b"%d" % number) for number in range(200)]
    members += [hard(f"l{number}/f", f"d{number}/f") for number in range(200)]
    root = layer(*members)
    assert all((root / f"l{n}/f").stat().st_ino == (root / f"d{n}/f").stat().st_ino for n in range(200))


async def pieces(data: bytes) -> Any:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


async def test_copy_into_a_tree_resolves_as_its_processes_would(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    (root / "srv/data").mkdir(parents=True)
    (root / "way").symlink_to("/srv/data")
    (root / "out").symlink_to(outside)
    await unpack_into(root, "/way", pieces(tar(file("a"), (".wh.b", {"data": b"kept as it is"}))))
    assert (root / "srv/data/a").read_bytes() == b"new"
    assert (root / "srv/data/.wh.b").read_bytes() == b"kept as it is"
    with pytest.raises(BastideError):
        await unpack_into(root, "/out", pieces(tar(file("victim"))))
    with pytest.raises(InvalidArgument):
        await unpack_into(root, "/srv", pieces(tar(file("../../../outside/victim"))))


async def test_copy_that_may_not_overwrite_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d/keep").mkdir(parents=True)
    (tmp_path / "f").write_text("keep")
    with pytest.raises(InvalidArgument, match="cannot overwrite directory"):
        await unpack_into(tmp_path, "/", pieces(tar(file("d"))), no_overwrite_dir=True)
    with pytest.raises(InvalidArgument, match="cannot overwrite non-directory"):
        await unpack_into(tmp_path, "/", pieces(tar(folder("f"))), no_overwrite_dir=True)
    await unpack_into(tmp_path, "/", pieces(tar(folder("d"), file("f", b"over"))), no_overwrite_dir=True)
    assert (tmp_path / "f").read_bytes() == b"over"
    assert (tmp_path / "d/keep").is_dir()


def test_entries_without_number_are_refused(layer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTACKS 8: entries that cost their sender a few bits each."""
    monkeypatch.setattr(archive, "ENTRY_LIMIT", 50)
    layer(*[file("same") for _ in range(50)])
    with pytest.raises(InvalidArgument, match="more than 50 entries"):
        layer(*[file("same") for _ in range(51)])


async def test_cut_off_stream(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="ends early"):
        await unpack_into(tmp_path, "/", pieces(tar(file("a", b"x" * 5000))[:3000]))

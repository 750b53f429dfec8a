"""Layers from an overlay's upper directory: the same tree the same bytes, deletions in the OCI's form."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import tarfile
from pathlib import Path

import pytest
import zstandard

from bastide.images.changes import LayerWriter, Packed, copy_entries, write_changes
from bastide.images.tar import MalformedArchive


def packed(upper: Path, compression: str = "", **options: object) -> tuple[Packed, bytes]:
    buffer = io.BytesIO()
    writer = LayerWriter(buffer, compression)
    write_changes(upper, writer, **options)  # type: ignore[arg-type]
    return writer.end(), buffer.getvalue()


def entries(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar.getmembers()}


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "upper"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_text("content")
    (root / "d" / "f").chmod(0o640)
    os.link(root / "d" / "f", root / "d" / "g")
    (root / "link").symlink_to("/x")
    os.mkfifo(root / "pipe")
    root.chmod(0o755)
    return root


def test_entries(upper: Path) -> None:
    found = entries(packed(upper)[1])
    assert list(found) == [name for name in (".", "d", "d/f", "d/g", "link", "pipe") if name in found]
    assert (found["d/f"].size, found["d/f"].mode) == (7, 0o640)
    assert (found["d/g"].linkname, found["d/g"].islnk()) == ("d/f", True)
    assert found["link"].linkname == "/x"
    assert found["pipe"].isfifo()


def test_the_same_tree_gives_the_same_bytes(upper: Path) -> None:
    first = packed(upper)
    os.utime(upper / "d" / "f", ns=(0, (upper / "d" / "f").stat().st_mtime_ns // 10**9 * 10**9 + 5))
    assert packed(upper)[1] == first[1]


@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_digests(upper: Path, compression: str) -> None:
    found, data = packed(upper, compression)
    plain = {"gzip": gzip.decompress, "zstd": lambda d: zstandard.ZstdDecompressor().decompressobj().decompress(d)}
    assert found.descriptor.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert found.descriptor.size == len(data)
    inner = plain[compression](data) if compression else data
    assert found.diff_id == "sha256:" + hashlib.sha256(inner).hexdigest()
    assert found.size == 7


def test_sockets_and_what_is_skipped_stay_out(upper: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(upper / "socket"))
        found = entries(packed(upper, skip=lambda path, status: path == b"d")[1])
    assert "socket" not in found
    assert "d" not in found
    assert "d/f" not in found


def test_long_and_strange_names(tmp_path: Path) -> None:
    names = ["x" * 200, "é☃", "new\nline", "-dash"]
    for name in names:
        (tmp_path / name).touch()
    found = entries(packed(tmp_path)[1])
    assert set(names) <= set(found)


def test_no_change_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper").chmod(0o755)
    found = packed(tmp_path / "upper")[0]
    assert found.entries == (0 if os.geteuid() == 0 else 1)


def test_deletions() -> None:
    buffer = io.BytesIO()
    writer = LayerWriter(buffer, "")
    writer.whiteout(b"a/b")
    writer.whiteout(b"top")
    writer.opaque(b"d/")
    writer.end()
    assert list(entries(buffer.getvalue())) == ["a/.wh.b", ".wh.top", "d/.wh..wh..opq"]


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = 0 if name.endswith("/") else 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


def test_entries_of_a_guest() -> None:
    buffer = io.BytesIO()
    writer = LayerWriter(buffer, "")
    copy_entries([archive("d/", "d/f")], writer, b"/above", first_only=False)
    copy_entries([archive("e/", "e/f")], writer, b"", first_only=True)
    writer.end()
    assert list(entries(buffer.getvalue())) == ["above/d", "above/d/f", "e"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_a_guest_does_not_name_what_is_outside(name: str) -> None:
    with pytest.raises(MalformedArchive):
        copy_entries([archive(name)], LayerWriter(io.BytesIO(), ""), b"", first_only=False)

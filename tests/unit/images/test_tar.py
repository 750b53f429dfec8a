"""The tar reader against Python's and GNU tar's writers, and against archives that lie (ATTACKS 8, 9, 13)."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bastide.images import pack
from bastide.images.tar import Kind, MalformedArchive, Reader


def entries(data: bytes, step: int = 1 << 20) -> list[tuple[bytes, Kind, bytes]]:
    """Name, kind and data of everything in an archive, which comes in pieces of `step` bytes."""
    reader = Reader(data[at : at + step] for at in range(0, len(data), step))
    return [(entry.name, entry.kind, b"".join(reader.pieces())) for entry in reader]


def archive(*infos: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1, 100, 512, 777, 1 << 20])
def test_what_python_writes(form: int, step: int) -> None:
    deep = "d/" * 40 + "name" * 15
    found = entries(archive(member("a", size=1000), member(deep, size=1), member("dir", type=b"5"), form=form), step)
    assert (
        found
        == [
            (b"a", Kind.FILE, b"x" * 1000),
            (deep.encode(), Kind.FILE, b"x"),
            (b"dir/" if form != tarfile.USTAR_FORMAT else found[2][0], Kind.DIRECTORY, b""),
        ]
        or found[2][0].rstrip(b"/") == b"dir"
    )


@pytest.mark.parametrize("left", [0, 1, 23])
def test_the_last_file_need_not_be_padded(left: int) -> None:
    """As the archive that docker's client makes of a context and a Dockerfile from elsewhere; Go takes it so."""
    whole = archive(member("a", size=1000), member("b", size=1000), form=tarfile.USTAR_FORMAT)
    end = 2 * (512 + 1024) - 24
    assert entries(whole[: end + left], 100) == [(b"a", Kind.FILE, b"x" * 1000), (b"b", Kind.FILE, b"x" * 1000)]
    with pytest.raises(MalformedArchive, match="ends early"):
        entries(whole[: end - 1], 100)


def test_large_numbers_and_times() -> None:
    data = archive(member("a", uid=3_000_000, gid=4_000_000_000, mtime=1234.5))
    entry = next(iter(Reader([data])))
    assert (entry.uid, entry.gid, entry.mtime) == (3_000_000, 4_000_000_000, 1_234_500_000_000)
    data = archive(member("a", uid=3_000_000, gid=4_000_000_000), form=tarfile.GNU_FORMAT)
    entry = next(iter(Reader([data])))
    assert (entry.uid, entry.gid) == (3_000_000, 4_000_000_000)


@pytest.mark.parametrize(
    "arguments", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, arguments: list[str]) -> None:
    with (tmp_path / "holes").open("wb") as file:
        for number in range(40):
            file.seek(number * 300_000)
            file.write(b"data%d" % number)
        file.truncate(20_000_000)
    made = subprocess.run(["tar", "-cS", *arguments, "-C", tmp_path, "holes"], capture_output=True, check=True).stdout
    assert len(made) < 5_000_000, "tar wrote no sparse file"
    reader = Reader([made])
    entry = next(iter(reader))
    assert (entry.name, entry.size) == (b"holes", 20_000_000)
    stored = b"".join(reader.pieces())
    rebuilt = bytearray(entry.size)
    for offset, length in entry.sparse or []:
        rebuilt[offset : offset + length], stored = stored[:length], stored[length:]
    assert bytes(rebuilt) == (tmp_path / "holes").read_bytes()
    assert reader.next() is None


def checked(block: bytes) -> bytes:
    """A header with its checksum put right."""
    fresh = bytearray(block)
    fresh[148:156] = b" " * 8
    fresh[148:156] = b"%06o\0 " % sum(fresh)
    return bytes(fresh)


def changed(position: int, value: bytes, data: bytes | None = None) -> bytes:
    block = bytearray(pack.header(b"name", mode=0o100644))
    block[position : position + len(value)] = value
    return checked(bytes(block)) + (data or b"") + pack.END


@pytest.mark.parametrize(
    "data",
    [
        changed(124, b"\xff" * 12),  # a negative size
        changed(124, b"\x80" + b"\x7f" * 11),  # a size beyond all disks
        changed(124, b"zzzzzzzzzzz\0"),
        changed(108, b"\x80\xff\xff\xff\xff\xff\xff\xff"),  # a uid outside of any map
        changed(156, b"Z"),
        checked(changed(156, b"S")[:482] + b"\1" + bytes(29)),  # sparse, its map cut off
        changed(156, b"3")[:329] + b"\x80" + b"\xff" * 7,
        pack.header(b"name", mode=0o100644)[:300],
        bytes(512) + pack.header(b"name", mode=0o100644),
        b"x" * 512,
    ],
)
def test_headers_that_lie(data: bytes) -> None:
    with pytest.raises(MalformedArchive):
        entries(data)


def pax(records: bytes) -> bytes:
    extended = pack._plain(b"x", b"x", 0o644, (0, 0), len(records), 0, b"", (0, 0))
    return extended + records + pack.padding(len(records)) + pack.header(b"name", mode=0o100644) + pack.END


@pytest.mark.parametrize(
    "records",
    [
        b"",
        b"99 path=x\n",
        b"0 path=x\n",
        b"-9 path=x\n",
        b"10 path=xx",
        b"9 path=\0\n",
        b"12 size=-123\n",
        b"20 size=99999999999\n",
        b"x path=x\n",
        b"11 =x\n",
        b"9 uid=-1\n",
        b"22 GNU.sparse.map=0,99\n25 GNU.sparse.size=10\n",
        b"21 GNU.sparse.map=0,0\n39 GNU.sparse.size=9223372036854775808\n",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.realsize=5\n",
    ],
)
def test_pax_headers_that_lie(records: bytes) -> None:
    if records == b"":
        assert entries(pax(records))[0][0] == b"name"
        return
    with pytest.raises(MalformedArchive):
        entries(pax(records))


def test_huge_pax_header_is_refused_unread() -> None:
    extended = pack._plain(b"x", b"x", 0o644, (0, 0), 1 << 30, 0, b"", (0, 0))
    with pytest.raises(MalformedArchive, match="extended header of"):
        entries(extended)


def test_names_and_links_that_are_too_long() -> None:
    for header in (pack.header(b"a" * 5000, mode=0o100644), pack.header(b"a", mode=0o120777, link=b"b" * 5000)):
        with pytest.raises(MalformedArchive, match="too long"):
            entries(header + pack.END)


def test_global_headers_change_nothing() -> None:
    records = b"15 path=global\n"
    extended = pack._plain(b"g", b"g", 0o644, (0, 0), len(records), 0, b"", (0, 0))
    data = extended + records + pack.padding(len(records)) + pack.header(b"name", mode=0o100644) + pack.END
    assert entries(data)[0][0] == b"name"


def test_links_and_directories_have_no_data_whatever_they_say() -> None:
    block = bytearray(pack.header(b"link", mode=0o100644, hard=True, link=b"x"))
    block[124:136] = b"00000001000\0"
    data = checked(bytes(block)) + pack.header(b"after", mode=0o100644) + pack.END
    assert [name for name, _, _ in entries(data)] == [b"link", b"after"]


def test_what_we_write_is_what_gnu_tar_reads(tmp_path: Path) -> None:
    long, odd = b"n" * 90 + b"/" + b"m" * 90, "ü\n".encode()
    data = b"".join(
        (
            pack.header(long, mode=0o100640, uid=3_000_000, size=3, mtime=1_500_000_000),
            b"abc" + pack.padding(3),
            pack.header(odd, mode=0o120777, link=b"t" * 200),
            pack.header(b"dir", mode=0o40755, mtime=-1_500_000_000),
            pack.END,
        )
    )
    (tmp_path / "a.tar").write_bytes(data)
    listed = subprocess.run(
        ["tar", "-tf", tmp_path / "a.tar", "--quoting-style=literal"], capture_output=True, check=True
    ).stdout
    assert listed == long + b"\n" + odd + b"\ndir/\n"
    assert [name for name, _, _ in entries(data)] == [long, odd, b"dir/"]


@settings(max_examples=300, deadline=None)
@given(some.data())
def test_damaged_archives_raise_our_error_only(data: some.DataObject) -> None:
    base = bytearray(archive(member("a", size=600), member("b" * 120, size=5, uid=3_000_000), member("d", type=b"5")))
    for _ in range(data.draw(some.integers(1, 6))):
        base[data.draw(some.integers(0, len(base) - 1))] = data.draw(some.integers(0, 255))
    with contextlib.suppress(MalformedArchive):
        entries(bytes(base[: data.draw(some.integers(0, len(base)))]), data.draw(some.sampled_from((1, 511, 4096))))


@settings(max_examples=200, deadline=None)
@given(some.binary(max_size=2048))
def test_any_bytes_raise_our_error_only(data: bytes) -> None:
    with contextlib.suppress(MalformedArchive):
        entries(data)


def test_a_real_tree(tmp_path: Path) -> None:
    source = os.fspath(Path(tarfile.__file__).parent / "json")
    made = subprocess.run(["tar", "-c", "-C", source, "."], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        expected = {info.name.encode(): info.size for info in tar if info.isreg()}
    assert {name: len(data) for name, kind, data in entries(made, 4096) if kind is Kind.FILE} == expected

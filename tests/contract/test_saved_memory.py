"""The memory of a VM that is saved: the template's file, and beside it what differs, as a stream that QEMU reads."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from bastide.hypervisor import memory
from bastide.model.errors import GuestError

PAGE = mmap.PAGESIZE
PAGES = 600
WRITTEN = (0, 1, 2, 255, 256, 257, 599)
MAPPER = """
import mmap, os, sys
path, pages, written = sys.argv[1], int(sys.argv[2]), map(int, sys.argv[3].split(","))
file = os.open(path, os.O_RDONLY)
area = mmap.mmap(file, pages * mmap.PAGESIZE, access=mmap.ACCESS_COPY)
sum(area[at] for at in range(0, len(area), mmap.PAGESIZE))
for page in written:
    area[page * mmap.PAGESIZE] = 7
print("there", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "template"
    path.write_bytes(os.urandom(PAGES * PAGE))
    path.chmod(0o444)
    return path


@pytest.fixture
def mapper(file: Path) -> Iterator[int]:
    """A process that maps the file privately, reads all of it and writes to some pages."""
    words = [sys.executable, "-c", MAPPER, str(file), str(PAGES), ",".join(map(str, WRITTEN))]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == b"there\n"
        yield child.pid
        child.stdin.close()


def pages_of(stream: bytes) -> dict[int, bytes]:
    """What a RAM section says, read as QEMU's migration/savevm.c and ram.c do (version 4, shared memory left out)."""
    file = BytesIO(stream)

    def take(form: str) -> tuple[int, ...]:
        return struct.unpack(">" + form, file.read(struct.calcsize(">" + form)))

    def name() -> bytes:
        return file.read(*take("B"))

    assert file.read(8) == b"QEVM\0\0\0\3"
    kind, section = take("BI")
    assert (kind, name(), take("II")) == (1, b"ram", (0, 4))
    (total,) = take("Q")
    assert total == PAGES * PAGE | 4
    assert (name(), take("QQ")) == (b"ram", (PAGES * PAGE, 0))
    assert take("QBI") == (0x10, 0x7E, section)
    assert take("BI") == (3, section)
    found = {}
    while (place := take("Q")[0]) != 0x10:
        assert place % PAGE == 0x08
        assert name() == b"ram"
        found[place - 0x08] = file.read(PAGE)
    assert take("BI") == (0x7E, section)
    assert not file.read()
    return found


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "passing"])
def test_what_was_written_to_is_saved_beside_the_file(file: Path, mapper: int, tmp_path: Path, lasting: bool) -> None:
    stream, ram = BytesIO(), tmp_path / "ram"
    memory.save(mapper, os.getuid(), PAGES * PAGE, ram, stream, lasting=lasting)
    whole = file.read_bytes()
    expected = {page * PAGE: b"\7" + whole[page * PAGE + 1 : (page + 1) * PAGE] for page in WRITTEN}
    assert pages_of(stream.getvalue()) == expected
    assert ram.samefile(file)
    assert ram.is_symlink() != lasting


def test_a_file_without_a_name_is_copied(file: Path, mapper: int, tmp_path: Path) -> None:
    whole, ram = file.read_bytes(), tmp_path / "ram"
    file.unlink()
    memory.save(mapper, os.getuid(), PAGES * PAGE, ram, BytesIO())
    assert ram.read_bytes() == whole
    assert ram.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(("uid", "size"), [(1, PAGES * PAGE), (0, PAGES * PAGE * 2), (0, PAGE)])
def test_another_process_is_no_memory(mapper: int, tmp_path: Path, uid: int, size: int) -> None:
    with pytest.raises(GuestError):
        memory.save(mapper, os.getuid() + uid, size, tmp_path / "ram", BytesIO())
    assert not (tmp_path / "ram").exists()


def test_devices_in_another_form() -> None:
    with pytest.raises(GuestError):
        memory.devices(b"QEVM\0\0\0\4")
    assert memory.devices(b"QEVM\0\0\0\3rest") == b"rest"

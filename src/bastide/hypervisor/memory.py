"""The memory of a QEMU that stands still: the file that it maps privately, and the pages in which it differs from it.

A migration of QEMU's own would write all of the memory, and who restores that shares nothing with anybody. So the
pages that were written to since are read from outside, through /proc (proc(5): maps, pagemap, mem), and put down as
the RAM section of a migration stream (QEMU 7.2, migration/savevm.c and ram.c, version 4; big-endian). QEMU maps the
same file again and has them put over it. What the guest has not touched is in one place for all.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from bastide.hypervisor.disks import copy_sparse
from bastide.model.errors import GuestError

BLOCK = b"ram"
"""What the command line calls the memory (`memory-backend-file,id=ram`): the name of QEMU's RAMBlock."""

_PAGE = 4096
"""Bytes of a page, of the guest's (TARGET_PAGE_SIZE of all our machines) as of the host's."""
_ENTRY = 8
"""Bytes for a page in `pagemap`; the last of them has the flags."""
_PRESENT, _SWAPPED, _OF_A_FILE = 0x80, 0x40, 0x20
_WRITTEN = bytes(bool(flags & (_PRESENT | _SWAPPED)) and not flags & _OF_A_FILE for flags in range(256))
_RUN = re.compile(rb"\x01+")
_PIECE = 256
"""Pages that are read at a time."""

_HEADER = struct.pack(">4sI", b"QEVM", 3)
_START, _END, _FOOTER = 1, 3, 0x7E
_SECTION = 0xBA57
"""The section's number, which is ours to choose: the devices' begin when it has ended."""
_SIZE, _PAGE_FOLLOWS, _ENOUGH = 0x04, 0x08, 0x10
_CLOSE = struct.pack(">QBI", _ENOUGH, _FOOTER, _SECTION)

_Area = tuple[int, int, int]
"""Where a part of the file is mapped: first address, address of the end, offset in the file."""


def save(pid: int, uid: int, size: int, ram: Path, state: BinaryIO, *, lasting: bool = True) -> None:
    """Write the memory, `size` bytes, of the QEMU `pid` that runs as `uid` and stands still; begins the stream `state`.

    `ram` becomes the file that it maps: by a second name, or a copy where it has none any more; if it is not
    `lasting`, by a link that is good while QEMU runs. Raises GuestError when the process is not what it should
    be, OSError.
    """
    with ExitStack() as opened:

        def open_(name: str, flags: int = os.O_RDONLY, at: int | None = None) -> int:
            file = os.open(name, flags | os.O_CLOEXEC, dir_fd=at)
            opened.callback(os.close, file)
            return file

        process = open_(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY)
        if os.fstat(process).st_uid != uid:
            raise GuestError("the virtual machine has ended")
        with open(open_("maps", at=process), closefd=False) as maps:
            areas = _areas(maps, size)
        mapped = f"map_files/{areas[0][0]:x}-{areas[0][1]:x}"
        if not lasting:
            ram.symlink_to(f"/proc/{pid}/{mapped}")
        else:
            _name(process, mapped, ram)
        state.write(_HEADER + _introduction(size))
        pagemap, memory = open_("pagemap", at=process), open_("mem", at=process)
        for area in areas:
            for offset, data in _written(pagemap, memory, area):
                state.write(b"".join(_pages(offset, data)))
        state.write(_CLOSE)


def devices(stream: bytes) -> bytes:
    """What follows the memory: the devices' sections of a stream that QEMU wrote. Raises GuestError."""
    if not stream.startswith(_HEADER):
        raise GuestError("QEMU saved the devices in a form that is not known here")
    return stream[len(_HEADER) :]


def _areas(maps: Iterator[str], size: int) -> list[_Area]:
    """Where the private mapping of a file is that is as large as the memory. Raises GuestError."""
    files: dict[tuple[str, str], list[_Area]] = {}
    for line in maps:
        span, mode, offset, device, inode = line.split(maxsplit=5)[:5]
        if mode.endswith("p") and inode != "0":
            start, end = (int(address, 16) for address in span.split("-"))
            files.setdefault((device, inode), []).append((start, end, int(offset, 16)))
    for areas in files.values():
        areas.sort(key=lambda area: area[2])
        ends = [*itertools.accumulate((end - start for start, end, _ in areas), initial=0)]
        if ends[-1] == size and [offset for _, _, offset in areas] == ends[:-1]:
            return areas
    raise GuestError("the virtual machine's memory is not mapped as it was told to")


def _name(process: int, mapped: str, ram: Path) -> None:
    """Have the file there that a process has mapped (proc(5), `map_files`)."""
    try:
        # The folder is named because os.link follows links only then (linkat(2), AT_SYMLINK_FOLLOW).
        os.link(mapped, ram, src_dir_fd=process)
    except OSError:
        # It has no name left, or one on another file system.
        copy_sparse(Path(f"/proc/self/fd/{process}/{mapped}"), ram)
        ram.chmod(0o444)


def _introduction(size: int) -> bytes:
    """The section's first part: how large the memory is. Its address is told where shared memory is left out."""
    named = struct.pack(">B3s", len(BLOCK), BLOCK)
    begin = struct.pack(">BI4sII", _START, _SECTION, named, 0, 4)
    total = struct.pack(">Q4sQQ", size | _SIZE, named, size, 0)
    return begin + total + _CLOSE + struct.pack(">BI", _END, _SECTION)


def _written(pagemap: int, memory: int, area: _Area) -> Iterator[tuple[int, bytes]]:
    """The stretches of pages that are the process's own: offset in the memory, bytes."""
    start, end, offset = area
    entries = os.pread(pagemap, (end - start) // _PAGE * _ENTRY, start // _PAGE * _ENTRY)
    own = entries[_ENTRY - 1 :: _ENTRY].translate(_WRITTEN)
    if len(own) != (end - start) // _PAGE:
        raise GuestError("the virtual machine has ended")
    for found in _RUN.finditer(own):
        for page in range(found.start(), found.end(), _PIECE):
            length = min(_PIECE, found.end() - page) * _PAGE
            data = os.pread(memory, length, start + page * _PAGE)
            if len(data) != length:
                raise GuestError("the virtual machine has ended")
            yield offset + page * _PAGE, data


def _pages(offset: int, data: bytes) -> Iterator[bytes]:
    """Pages as QEMU has them in a stream; each names its block, as if it were the first."""
    for at in range(0, len(data), _PAGE):
        yield struct.pack(">QB3s", (offset + at) | _PAGE_FOLLOWS, len(BLOCK), BLOCK)
        yield data[at : at + _PAGE]

"""Tar archives on this side: made of local files, and unpacked where a container cannot reach out.

What comes from a container is not trusted. Every entry is reached from the target folder by one component at a time,
without following a symbolic link, and `..` is refused: nothing is written outside the target.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import IO, cast

from bastide.cli.grammar import CommandError
from bastide.cli.show import text

_BLOCK = 1 << 18
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def pack(entries: Iterable[tuple[str, str]], *, owner: bool = True) -> Iterator[bytes]:
    """An archive of files: pairs of a local path and a name in the archive; not `owner`: all are root's."""
    maker = tarfile.TarFile(fileobj=BytesIO(), mode="w", format=tarfile.PAX_FORMAT)
    for path, name in entries:
        info = maker.gettarinfo(path, name)
        if info is None:  # a socket
            continue
        if not owner:
            info.uid = info.gid = 0
            info.uname = info.gname = ""
        if not info.isreg():
            yield info.tobuf(tarfile.PAX_FORMAT)
            continue
        with open(path, "rb", buffering=0) as file:
            yield info.tobuf(tarfile.PAX_FORMAT)
            left = info.size
            while left and (block := file.read(min(left, _BLOCK))):
                left -= len(block)
                yield block
            yield b"\0" * (left + -info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def text_entry(name: str, content: bytes) -> bytes:
    """One file of an archive, made from bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.PAX_FORMAT) + content + b"\0" * (-len(content) % tarfile.BLOCKSIZE)


def walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    """A file or a folder with all that is in it, as entries for `pack`."""
    yield path, name
    if os.path.isdir(path) and not os.path.islink(path):
        for child in sorted(os.listdir(path)):
            yield from walk(f"{path}/{child}", f"{name}/{child}")


class _Blocks:
    """Blocks as the file that `tarfile` reads."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, b""

    def read(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            block = self._rest or next(self._blocks, b"")
            if not block:
                break
            parts.append(block[:missing])
            self._rest = block[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)


def unpack(blocks: Iterator[bytes], target: str, rename: Callable[[str], str], *, owner: bool = False) -> None:
    """Unpack an archive below the folder `target`; `rename` gives each entry's name there.

    Raises CommandError for an archive that is broken or would write elsewhere.
    """
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    times: list[tuple[list[str], tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Blocks(blocks)), mode="r|") as archive:
            for info in archive:
                parts = components(rename(info.name))
                if info.islnk():
                    _link(root, components(rename(info.linkname)), parts)
                    continue
                _entry(root, archive, info, parts, owner=owner)
                if info.isdir():
                    times.append((parts, info))
        for parts, info in reversed(times):
            _stamp(root, parts, info)
    except tarfile.TarError as error:
        raise CommandError(f"the archive is broken: {error}") from error
    finally:
        os.close(root)


def components(name: str) -> list[str]:
    """The parts of an entry's name. Raises CommandError for one that points upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise CommandError(f"the archive has an entry outside of itself: {name}")
    return parts


def _parent(root: int, parts: list[str]) -> int:
    """A descriptor of the folder that an entry is in, made where it is missing."""
    folder = os.dup(root)
    for part in parts[:-1]:
        try:
            child = os.open(part, _FOLDER, dir_fd=folder)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=folder)
            child = os.open(part, _FOLDER, dir_fd=folder)
        except OSError as error:
            raise CommandError(f"{'/'.join(parts)} is behind something that is no folder: {part}") from error
        finally:
            os.close(folder)
        folder = child
    return folder


def _entry(root: int, archive: tarfile.TarFile, info: tarfile.TarInfo, parts: list[str], *, owner: bool) -> None:
    if not parts:
        return
    folder, name = _parent(root, parts), parts[-1]
    try:
        _clear(folder, name, keep=info.isdir())
        mode = info.mode & 0o7777
        if info.isdir():
            if not _exists(folder, name):
                os.mkdir(name, mode | 0o700, dir_fd=folder)
        elif info.issym():
            os.symlink(info.linkname, name, dir_fd=folder)
        elif info.isreg():
            _file(folder, name, archive, info, mode & 0o777)
        elif info.isfifo():
            os.mkfifo(name, mode, dir_fd=folder)
        else:
            text.err(f"left out, a device: {'/'.join(parts)}")
            return
        if owner:
            os.chown(name, info.uid, info.gid, dir_fd=folder, follow_symlinks=False)
        if info.isreg():
            os.chmod(name, mode if owner else mode & 0o1777, dir_fd=folder)
            os.utime(name, (info.mtime, info.mtime), dir_fd=folder)
    finally:
        os.close(folder)


def _file(folder: int, name: str, archive: tarfile.TarFile, info: tarfile.TarInfo, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    source = archive.extractfile(info)
    assert source is not None
    with open(os.open(name, flags, mode & 0o700, dir_fd=folder), "wb", buffering=0) as file:
        while block := source.read(_BLOCK):
            file.write(block)


def _link(root: int, old: list[str], new: list[str]) -> None:
    if not old or not new:
        raise CommandError("the archive has a hard link to nowhere")
    source, target = _parent(root, old), _parent(root, new)
    try:
        _clear(target, new[-1], keep=False)
        os.link(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    finally:
        os.close(source)
        os.close(target)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _clear(folder: int, name: str, *, keep: bool) -> None:
    """Make room for an entry; a folder stays where a folder comes."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(there.st_mode):
        if not keep:
            raise CommandError(f"cannot overwrite directory {name!r} with non-directory")
        return
    os.unlink(name, dir_fd=folder)


def _stamp(root: int, parts: list[str], info: tarfile.TarInfo) -> None:
    """A folder's time and mode, once nothing more is written into it."""
    if not parts:
        return
    folder = _parent(root, parts)
    try:
        os.chmod(parts[-1], info.mode & 0o1777, dir_fd=folder)
        os.utime(parts[-1], (info.mtime, info.mtime), dir_fd=folder)
    finally:
        os.close(folder)

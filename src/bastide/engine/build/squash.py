"""`--squash`: the layers of a build merged into one, in the overlay's own form."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"


def merge(layers: Sequence[Path], target: Path) -> None:
    """Put layers, lowest first, into the empty directory `target` as one. Files are shared with them. Blocks.

    Deletions stay: there may be something below all of them to hide.
    """
    for layer in layers:
        found = layer.stat()
        os.chown(target, found.st_uid, found.st_gid)
        target.chmod(stat.S_IMODE(found.st_mode))
        source, into = os.open(layer, _FOLDER), os.open(target, _FOLDER)
        try:
            _merge(source, into)
        finally:
            os.close(source)
            os.close(into)


def _merge(source: int, target: int) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            _directory(source, target, name, status)
        else:
            _clear(target, name)
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def _directory(source: int, target: int, name: str, status: os.stat_result) -> None:
    child = os.open(name, _FOLDER, dir_fd=source)
    try:
        hides = _is_opaque(child)
        known = _kind(target, name)
        if hides or not stat.S_ISDIR(known):
            # What replaces a deletion, or a file, hides whatever is below that as well.
            hides = hides or known != 0
            _clear(target, name)
            os.mkdir(name, 0o700, dir_fd=target)
        into = os.open(name, _FOLDER, dir_fd=target)
        try:
            _merge(child, into)
            os.fchown(into, status.st_uid, status.st_gid)
            os.fchmod(into, stat.S_IMODE(status.st_mode))
            if hides:
                os.setxattr(into, _OPAQUE, b"y")
            for key in os.listxattr(child):
                if key.startswith(("user.", "system.posix_acl")):
                    with contextlib.suppress(OSError):
                        os.setxattr(into, key, os.getxattr(child, key))
            os.utime(into, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(into)
    finally:
        os.close(child)


def _kind(folder: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _clear(folder: int, name: str) -> None:
    mode = _kind(folder, name)
    if stat.S_ISDIR(mode):
        shutil.rmtree(name, dir_fd=folder)
    elif mode:
        os.unlink(name, dir_fd=folder)


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError:
        return False

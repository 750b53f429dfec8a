"""The disks of a VM: sizes that every template and clone agree on, and the writable file system.

A template boots with placeholders of these sizes; a clone finds its own files in their places, and the
guest's driver knows the size from the boot.
"""

from __future__ import annotations

import os
from pathlib import Path

from bastide.host.syscalls import run
from bastide.model.errors import HostError, Unsupported

BASE_SIZE = 16 << 30
"""Bytes of the read-only disk: an image's erofs is padded to it, sparse."""
UPPER_SIZE = 64 << 30
"""Bytes of the writable disk, sparse."""

_FRESH = "user.bastide.fresh"

# No journal: the disk is as short-lived as the container, and the guest flushes it when it ends.
_FEATURES = "^has_journal,^resize_inode,sparse_super2,uninit_bg,extent,64bit,metadata_csum_seed,metadata_csum"


def placeholder(path: Path, size: int) -> None:
    """A sparse file of zeros."""
    with path.open("wb") as file:
        file.truncate(size)


async def format_upper(path: Path, size: int = UPPER_SIZE) -> None:
    """Make an empty ext4 of `size` bytes with the two folders an overlay needs. Raises Unsupported, HostError."""
    skeleton = path.with_name(path.name + ".tree")
    for name in ("upper", "work"):
        (skeleton / name).mkdir(parents=True, exist_ok=True)
    skeleton.chmod(0o755)
    try:
        done = await run(
            [
                "mke2fs",
                *("-q", "-F", "-t", "ext4"),
                *("-O", _FEATURES),
                *("-E", "lazy_itable_init=1,num_backup_sb=0,root_owner=0:0"),
                *("-N", str(max(1024, size >> 16))),
                *("-m", "0"),
                *("-d", skeleton),
                path,
                f"{size >> 10}k",
            ]
        )
    finally:
        for name in ("upper", "work"):
            (skeleton / name).rmdir()
        skeleton.rmdir()
    if done.code:
        raise Unsupported(f"mke2fs cannot make the writable disk of VMs: {done.complaint}")


def mark_fresh(path: Path) -> None:
    """Note that a writable disk is a copy of the empty one that nobody has written to."""
    os.setxattr(path, _FRESH, b"1")


def take_fresh(path: Path) -> bool:
    """Whether the disk was never written to; from now on it is."""
    try:
        os.removexattr(path, _FRESH)
    except OSError:
        return False
    return True


def copy_sparse(source: Path, target: Path, size: int = 0) -> None:
    """Copy only the data of a sparse file; the copy is `size` bytes long, or as long as the source."""
    with source.open("rb") as old, target.open("wb") as new:
        end = os.fstat(old.fileno()).st_size
        new.truncate(size or end)
        at = 0
        while at < end:
            try:
                start = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            while start < at:
                count = os.copy_file_range(old.fileno(), new.fileno(), at - start, start, start)
                if not count:
                    raise HostError("copy_file_range", 5, source)
                start += count

"""Sources of bind mounts: opened once, so that what was checked is what gets mounted."""

from __future__ import annotations

import os
from pathlib import Path

from bastide.host import mounts
from bastide.host.paths import open_in
from bastide.model.errors import Conflict, InvalidArgument, NotFound

_SHARED, _SLAVE = ("shared", "rshared"), ("slave", "rslave")


def open_source(source: Path, subpath: str = "") -> int:
    """A descriptor (O_PATH) of a source, or of a path inside it that cannot lead out of it (CVE-2021-25741).

    Links in the source itself are the user's and are followed. Raises Conflict (no such source), NotFound (no
    such path inside).
    """
    try:
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Conflict(f"bind source path does not exist: {source}") from error
    if not subpath:
        return fd
    try:
        return open_in(fd, subpath)
    except OSError as error:
        raise NotFound(f"cannot access path {source}/{subpath}: {error.strerror}") from error
    finally:
        os.close(fd)


def check_propagation(source: Path, propagation: str) -> None:
    """Docker's conditions: it needs a source whose mount propagates. Raises InvalidArgument."""
    if propagation not in (*_SHARED, *_SLAVE):
        return
    place = mounts.mount_of(source)
    if propagation in _SHARED and not place.shared:
        raise InvalidArgument(f"path {source} is mounted on {place.target} but it is not a shared mount")
    if propagation in _SLAVE and not place.peers:
        raise InvalidArgument(f"path {source} is mounted on {place.target} but it is not a shared or slave mount")

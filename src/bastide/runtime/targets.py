"""Where mounts may go: not over the kernel's own files, by which the runtime sets labels, limits and sysctls.

The rules are runc's (libcontainer/rootfs_linux.go, checkProcMount; CVE-2025-52881 and its forerunners since 2019),
which crun does not have. A target is judged by where it leads in the image, links included.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from bastide.host.paths import open_in, root_of
from bastide.model.errors import InvalidArgument
from bastide.model.process import Mount

_PROC = "/proc"
_FINE = frozenset(
    f"{_PROC}/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)
"""What lxcfs and CRIU put there."""


def check(root: Path, mounts: Iterable[Mount]) -> None:
    """Raise InvalidArgument for the first mount that would lie over /proc or in it. Blocks."""
    with root_of(root) as top:
        base = str(Path(f"/proc/self/fd/{top}").readlink())
        for mount in mounts:
            place = _leads_to(top, base, mount.target)
            inside = place == _PROC or place.startswith(f"{_PROC}/")
            if inside and place not in _FINE and not (place == _PROC and mount.source == Path(_PROC)):
                raise InvalidArgument(f'"{mount.target}" cannot be mounted because it is inside /proc')


def _leads_to(top: int, base: str, target: str) -> str:
    """The target as a path without links: those of its parts that exist are followed, in the root."""
    rest: list[str] = []
    path = posixpath.normpath("/" + target.lstrip("/"))
    while path != "/":
        try:
            fd = open_in(top, path, os.O_PATH)
        except OSError:
            path, name = posixpath.split(path)
            rest.insert(0, name)
            continue
        try:
            found = str(Path(f"/proc/self/fd/{fd}").readlink())
        finally:
            os.close(fd)
        path = found.removeprefix(base) or "/"
        break
    return posixpath.join(path, *rest)

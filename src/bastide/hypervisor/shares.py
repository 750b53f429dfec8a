"""Volumes and bind mounts of a VM: what its file server (monitor/shares_*.c) and its guest are told of them.

The server is started by the VM monitor and sees nothing of the host but these trees. Its 9P goes through a port
of the guest's; QEMU only moves the bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from bastide.host.sources import check_propagation, open_source
from bastide.hypervisor.plan import Plan
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.process import Mount

LIMIT = 256
"""Trees that one server holds (monitor/vmm.h, MAX_SHARES)."""
SAVED = "shares.saved"
"""The file in a container's directory that says what its guest holds, as of the last time that it was frozen.

A server that finds one takes it up (monitor/shares_saved.c)."""
_SUBPATH = "x-subpath="
_CONTAINER = "use --isolation container"
_KINDS = {
    stat.S_IFSOCK: ("a socket", f"reach its service by --add-host NAME:host-gateway, or {_CONTAINER}"),
    stat.S_IFIFO: ("a named pipe", _CONTAINER),
    stat.S_IFCHR: ("a device", _CONTAINER),
    stat.S_IFBLK: ("a device", _CONTAINER),
}


def binds(mounts: Iterable[Mount]) -> Iterator[Mount]:
    """The mounts that bring a tree of the host's, in the order of their numbers."""
    return (mount for mount in mounts if mount.kind == "bind")


def subpath(mount: Mount) -> str:
    """The path inside the source that is meant; empty: all of it."""
    return next((word[len(_SUBPATH) :] for word in mount.options if word.startswith(_SUBPATH)), "")


def check(mounts: Sequence[Mount]) -> None:
    """Refuse what cannot be shared. Raises Conflict, NotFound, InvalidArgument, Unsupported."""
    found = list(binds(mounts))
    if len(found) > LIMIT:
        raise InvalidArgument(f"a VM takes at most {LIMIT} volumes and bind mounts, not {len(found)}")
    for mount in found:
        assert mount.source is not None
        if mount.propagation in ("shared", "rshared"):
            raise Unsupported(f"isolation vm does not offer propagation {mount.propagation}: use rslave or rprivate")
        check_propagation(mount.source, mount.propagation)
        fd = open_source(mount.source, subpath(mount))
        try:
            kind, way = _KINDS.get(stat.S_IFMT(os.fstat(fd).st_mode), ("", ""))
        finally:
            os.close(fd)
        if kind:
            raise Unsupported(
                f"isolation vm does not offer a bind mount of {mount.source}: it is {kind} of the host's kernel; {way}"
            )


def plan(plan: Plan, mounts: Iterable[Mount]) -> None:
    """What the monitor hands to the server. A tree's number is its place in the list."""
    for mount in binds(mounts):
        words = [] if "bind" in mount.options else ["recursive"]
        if mount.read_only:
            words.append("ro" if "ro-non-recursive" in mount.options else "ro-below")
        if mount.propagation in ("slave", "rslave"):
            words.append("slave")
        plan.share(words, str(mount.source), subpath(mount))

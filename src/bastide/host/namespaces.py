"""Namespaces of this process's threads."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bastide.host import mounts
from bastide.host.syscalls import libc_call

_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_HYBRID = Path("/sys/fs/cgroup/unified")
_NETWORK_SETTINGS = "/proc/sys/net"


def hybrid_is_refused() -> bool:
    """Whether OCI runtimes refuse this host's cgroups: v1 beside a v2 hierarchy that has controllers of its own.

    crun: "cgroups in hybrid mode not supported, drop all controllers from cgroupv2".
    """
    try:
        return bool((_HYBRID / "cgroup.controllers").read_text().strip())
    except OSError:
        return False


def hide_hybrid() -> None:
    """Move the calling thread into a mount namespace of its own where the v2 hierarchy is not mounted.

    Mounts that the host makes on shared mounts appear there (it is a slave). Programs started by this
    thread inherit it; it ends with the last of them. Only for a thread that does nothing else.
    """
    _private_mounts()
    mounts.unmount(_HYBRID)


def hide_network_settings() -> None:
    """As `hide_hybrid`, and without anything below /proc/sys/net.

    runsc takes a setting there, which kernels since 6.x show everywhere, for the sign of the host's own
    network namespace, and refuses to take its addresses from it (gvisor `runsc/sandbox/network.go`, isRootNS).
    """
    _private_mounts()
    if hybrid_is_refused():
        mounts.unmount(_HYBRID)
    mounts.mount("tmpfs", _NETWORK_SETTINGS, "tmpfs", data="size=4k")


def _private_mounts() -> None:
    libc_call("unshare", _CLONE_FS | _CLONE_NEWNS)
    mounts.propagation("/", mounts.MS_REC | mounts.MS_SLAVE)


def forget_hidden(path: str) -> None:
    """Remove what crun leaves of a group where the hidden hierarchy was mounted: plain files that nobody else removes.

    Only for a thread that `hide_hybrid` moved; `path` is the group's.
    """
    folder = _HYBRID / path.strip("/")
    with contextlib.suppress(OSError):
        (folder / "cgroup.procs").unlink(missing_ok=True)
        folder.rmdir()


def same_place(path: Path, seen: os.stat_result) -> bool:
    """Whether a path in this thread's namespace leads to what was `seen` from another one."""
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (seen.st_dev, seen.st_ino)


def clone_from(namespace: Path, path: str) -> int:
    """A detached copy (`mounts.clone`) of what is mounted at `path` in another mount namespace.

    `namespace` is its file, as `/proc/PID/ns/mnt`. Raises OSError. Blocks.
    """

    def inside() -> int:
        libc_call("unshare", _CLONE_FS)
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc_call("setns", there, _CLONE_NEWNS)
        finally:
            os.close(there)
        place = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return mounts.clone(place)
        finally:
            os.close(place)

    # A thread of its own, gone afterwards: descriptors are the process's, the namespace is the thread's.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(inside).result()

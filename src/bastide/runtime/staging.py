"""Mounts and namespaces in a form that the runtime program can reach and nobody can swap meanwhile.

Where programs are started in a mount namespace of their own (see `host.namespaces.hide_hybrid`), that
namespace need not have what the host mounted later. So a source is opened here, its mounts are cloned
by descriptor (open_tree(2)) and put below the container's directory there for the time of the start.
The same way serves a path inside a volume: it is looked up in the volume's root and cloned by descriptor,
so that a link planted meanwhile leads nowhere (CVE-2021-25741).
"""

from __future__ import annotations

import os
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from bastide.host import mounts
from bastide.host.namespaces import clone_from
from bastide.host.processes import Spawner
from bastide.host.sources import check_propagation, open_source
from bastide.host.syscalls import blocking
from bastide.model.process import Bundle, Mount

_SUBPATH = "x-subpath="


async def stage(bundle: Bundle, spawner: Spawner, *, private: bool, until: AsyncExitStack) -> Bundle:
    """The bundle with its sources in place; `until` takes them away again, after the runtime's `create`.

    `private`: programs run in another mount namespace than this process.
    """
    wanted = await _shared_memory(bundle, until)
    made: list[Mount] = []
    for number, mount in enumerate(wanted.mounts):
        if mount.kind != "bind" or mount.source is None:
            made.append(mount)
            continue
        await blocking(check_propagation, mount.source, mount.propagation)
        subpath = next((word[len(_SUBPATH) :] for word in mount.options if word.startswith(_SUBPATH)), "")
        if not (private or subpath or _is_descriptor(mount.source)):
            made.append(mount)
            continue
        target = bundle.directory / f"mount{number}"
        await _graft(mount, subpath, target, spawner, until)
        options = tuple(word for word in mount.options if not word.startswith(_SUBPATH))
        made.append(msgspec.structs.replace(mount, source=target, options=options))
    staged = msgspec.structs.replace(wanted, mounts=tuple(made))
    return _network(staged, until) if private else staged


def _is_descriptor(path: Path) -> bool:
    return str(path).startswith("/proc/self/fd/")


async def _graft(mount: Mount, subpath: str, target: Path, spawner: Spawner, until: AsyncExitStack) -> None:
    assert mount.source is not None
    source, recursive = mount.source, "bind" not in mount.options

    def clone() -> int:
        fd = open_source(source, subpath)
        try:
            _make_target(target, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
            return os.dup(fd) if _is_descriptor(source) else mounts.clone(fd, recursive=recursive)
        finally:
            os.close(fd)

    tree = await blocking(clone)
    try:
        await spawner.call(lambda: mounts.attach(tree, target))
    finally:
        os.close(tree)

    async def away() -> None:
        await spawner.call(lambda: mounts.withdraw(target))
        await blocking(_remove_target, target)

    until.push_async_callback(away)


def _make_target(target: Path, *, directory: bool) -> None:
    if directory:
        target.mkdir(exist_ok=True)
    else:
        target.touch()


def _remove_target(target: Path) -> None:
    if target.is_dir():
        target.rmdir()
    else:
        target.unlink(missing_ok=True)


async def _shared_memory(bundle: Bundle, until: AsyncExitStack) -> Bundle:
    """/dev/shm goes with the IPC namespace: the host's, or that of the container whose namespace is shared."""
    shared = bundle.namespaces.get("ipc", "")
    if not shared or any(mount.target == "/dev/shm" for mount in bundle.mounts):
        return bundle
    source = Path("/dev/shm")
    if shared != "host":
        tree = await blocking(clone_from, Path(shared).with_name("mnt"), "/dev/shm")
        until.callback(os.close, tree)
        source = Path(f"/proc/self/fd/{tree}")
    mount = Mount(kind="bind", target="/dev/shm", source=source, options=("rbind",))
    return msgspec.structs.replace(bundle, mounts=(mount, *bundle.mounts))


def _network(bundle: Bundle, until: AsyncExitStack) -> Bundle:
    """Name the network namespace by a descriptor of ours: its file may be mounted in our namespace alone."""
    path = bundle.networking.namespace
    if path is None:
        return bundle
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    until.callback(os.close, fd)
    networking = msgspec.structs.replace(bundle.networking, namespace=Path(f"/proc/{os.getpid()}/fd/{fd}"))
    return msgspec.structs.replace(bundle, networking=networking)

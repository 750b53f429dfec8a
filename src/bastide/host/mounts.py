"""Mounts through the kernel's own calls: no mount(8), no shell, descriptors where a path could be swapped.

Numbers and flags: linux/mount.h; the calls from 428 up have one number on every architecture. The new
calls (fsopen(2) and its kin) need Linux 5.2: Debian 12 has 6.1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from bastide.host.syscalls import libc_call, syscall

MS_REC, MS_BIND = 1 << 14, 1 << 12
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_TREE_CLONE, _CLOEXEC = 1, 0o2000000
_MOVE_FROM_EMPTY = 4
_SET_STRING, _CREATE = 1, 6
_FS_CLOEXEC, _MOUNT_CLOEXEC = 1, 1
_ATTR_RDONLY = 1
_LONGEST_VALUE = 255
"""fsconfig(2) refuses longer strings."""


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    libc_call(
        "mount", os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, os.fsencode(data) or None
    )


def unmount(target: str | Path, flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> bool:
    """Take down what is mounted at a path; says whether something was. Raises OSError."""
    try:
        libc_call("umount2", os.fsencode(target), flags)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def unmount_all(target: str | Path) -> None:
    """Take down everything stacked at a path."""
    while unmount(target):
        pass


def withdraw(target: str | Path) -> None:
    """Take down a copy of somebody's mounts, which `target` is or is not, and nothing of theirs.

    A copy of a shared mount is its peer: what is unmounted below the one goes from below the other too
    (mount_namespaces(7)). So each is made a slave first, which hears and does not tell. Raises OSError.
    """
    while True:
        try:
            propagation(target, MS_REC | MS_SLAVE)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise
        unmount(target)


def clone(fd: int, *, recursive: bool = True) -> int:
    """A detached copy of the mounts at what `fd` is open on: open_tree(2). It vanishes with the descriptor
    unless it was put somewhere with `attach`. Raises OSError."""
    flags = _TREE_CLONE | _CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return syscall(_OPEN_TREE, "open_tree", fd, b"", flags)


def attach(tree: int, target: str | Path) -> None:
    """Put a detached mount at a path: move_mount(2). Raises OSError."""
    syscall(_MOVE_MOUNT, "move_mount", tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_FROM_EMPTY)


def propagation(target: str | Path, flags: int) -> None:
    """Change how a mount point propagates (`MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, with `MS_REC`)."""
    mount("none", target, flags=flags)


def mount_of(path: str | Path) -> Mounted:
    """The mount that a path lies on. Raises OSError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    number = re.search(r"^mnt_id:\s*(\d+)", text, re.MULTILINE)
    for entry in mounts():
        if number and entry.id == int(number[1]):
            return entry
    raise OSError(errno.ENOENT, "no such mount", str(path))


class Mounted:
    """One line of /proc/self/mountinfo (proc(5))."""

    __slots__ = ("id", "kind", "options", "peers", "root", "target")

    def __init__(self, line: str) -> None:
        before, _, after = line.partition(" - ")
        fields = before.split()
        self.id = int(fields[0])
        self.root, self.target = _unescape(fields[3]), _unescape(fields[4])
        self.peers = fields[6:]
        self.kind = after.split()[0]
        self.options = after.split()[-1]

    @property
    def shared(self) -> bool:
        """Whether mounts made on it appear in other namespaces."""
        return any(peer.startswith("shared:") for peer in self.peers)


def mounts() -> list[Mounted]:
    """The mounts of this process's namespace."""
    return [Mounted(line) for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def share(directory: Path) -> None:
    """See to it that mounts made below a directory appear in the mount namespaces that are copies of ours.

    Where systemd runs that is so already; elsewhere the directory is bound on itself and shared.
    """
    if not mount_of(directory).shared:
        mount(str(directory), directory, flags=MS_BIND)
        propagation(directory, MS_SHARED)


def overlay(lower: Sequence[Path], upper: Path | None, work: Path | None, target: Path, options: Sequence[str]) -> None:
    """Mount an overlay at `target`; `lower` is ordered from the top down. Without `upper` it is read-only.

    `options` are words `key=value`. Raises OSError.
    """
    context = syscall(_FSOPEN, "fsopen", b"overlay", _FS_CLOEXEC)
    held: list[int] = []
    try:
        _configure(context, lower, upper, work, options, held)
        syscall(_FSCONFIG, "fsconfig", context, _CREATE, None, None, 0)
        tree = syscall(_FSMOUNT, "fsmount", context, _MOUNT_CLOEXEC, 0 if upper else _ATTR_RDONLY)
    except OSError as error:
        raise OSError(error.errno, _complaint(context) or error.strerror, str(target)) from error
    finally:
        for fd in (*held, context):
            os.close(fd)
    try:
        attach(tree, target)
    finally:
        os.close(tree)


def _configure(
    context: int, lower: Sequence[Path], upper: Path | None, work: Path | None, options: Sequence[str], held: list[int]
) -> None:
    def text(path: Path) -> str:
        """The path, or a short name for it where the kernel would refuse its length."""
        if len(os.fsencode(path)) <= _LONGEST_VALUE:
            return str(path)
        held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{held[-1]}"

    def put(key: str, value: str) -> None:
        syscall(_FSCONFIG, "fsconfig", context, _SET_STRING, key.encode(), os.fsencode(value), 0)

    put("source", "overlay")
    for option in options:
        key, _, value = option.partition("=")
        put(key, value)
    for path in lower:
        put("lowerdir+", text(path))
    if upper is not None and work is not None:
        put("upperdir", text(upper))
        put("workdir", text(work))


def _complaint(context: int) -> str:
    """What the kernel wrote into the context's log, without the level that it begins with."""
    with contextlib.suppress(OSError):
        return os.read(context, 4096).decode(errors="replace").strip().partition(" ")[2]
    return ""


def overlay_takes_many() -> bool:
    """Whether overlay layers can be named one by one (`lowerdir+`, Linux 6.7)."""
    context = syscall(_FSOPEN, "fsopen", b"overlay", _FS_CLOEXEC)
    try:
        syscall(_FSCONFIG, "fsconfig", context, _SET_STRING, b"lowerdir+", b"/", 0)
    except OSError:
        return False
    finally:
        os.close(context)
    return True


def overlay_by_page(
    lower: Sequence[Path], upper: Path | None, work: Path | None, target: Path, options: Sequence[str]
) -> None:
    """The same for kernels without `lowerdir+` (before 6.7): mount(2), whose options must fit into a page.

    Directories are named by descriptors, so that any number of layers that an image may have fits,
    and a path may hold any character.
    """
    held: list[int] = []

    def name(path: Path) -> str:
        held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{held[-1]}"

    try:
        words = [*options, "lowerdir=" + ":".join(name(path) for path in lower)]
        if upper is not None and work is not None:
            words += [f"upperdir={name(upper)}", f"workdir={name(work)}"]
        mount("overlay", target, "overlay", 0 if upper else 1, ",".join(words))
    finally:
        for fd in held:
            os.close(fd)

"""Network namespaces that are kept by a file, and work inside of them.

A thread that enters another network namespace is made for that and ends with it, so that no thread of
the daemon is ever left in the wrong one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bastide.host import mounts
from bastide.host.syscalls import libc_call

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_SELF = "/proc/thread-self/ns/net"


def own_thread(work: Callable[[], T]) -> T:
    """Do `work` in a new thread and wait for it; gives its result or raises its error."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def unshare() -> int:
    """Move the calling thread into a new network namespace; gives a descriptor of it. Raises OSError."""
    libc_call("unshare", _CLONE_NEWNET)
    return os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)


def enter(descriptor: int) -> None:
    """Move the calling thread into a network namespace. Raises OSError."""
    libc_call("setns", descriptor, _CLONE_NEWNET)


def inside(path: Path, work: Callable[[], T]) -> T:
    """Do `work` in the namespace that the file `path` keeps. Raises OSError (no such file)."""

    def body() -> T:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(descriptor)
        finally:
            os.close(descriptor)
        return work()

    return own_thread(body)


def pin(path: Path) -> None:
    """Keep the calling thread's network namespace by a file, beyond the end of every process in it."""
    path.touch(mode=0o400, exist_ok=True)
    try:
        mounts.mount(_SELF, path, flags=mounts.MS_BIND)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def pinned(path: Path) -> bool:
    """Whether a file keeps a namespace now."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False


def unpin(path: Path) -> None:
    """Let go of a namespace; absent is no error. The kernel takes it apart when nobody is in it."""
    mounts.unmount_all(path)
    path.unlink(missing_ok=True)


def folder(path: Path) -> Path:
    """Make the folder for such files.

    Mount namespaces that are copies of ours let go of a namespace when we do.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o711)
    mounts.share(path)
    return path

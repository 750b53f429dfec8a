"""Programs as sealed copies in memory: what runs from one cannot be overwritten through /proc/self/exe.

memfd_create(2), fcntl(2) F_ADD_SEALS. An OCI runtime that finds itself in one trusts it (crun's and runc's
cloned_binary.c) instead of making a copy at each start, as it must since CVE-2019-5736.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10
"""linux/memfd.h; older kernels than 6.3 refuse it."""


class Sealed:
    """A sealed copy of one program, made when first asked for and again when the file has changed."""

    def __init__(self) -> None:
        self._seen: tuple[int, ...] = ()
        self._fd = -1

    def copy(self, source: Path) -> str:
        """Where every process that this one starts finds the copy of `source`: always the same place.

        The program itself where there can be no copy.
        """
        try:
            found = source.stat()
            seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if seen != self._seen:
                self._renew(source)
                self._seen = seen
        except OSError:
            return str(source)
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def _renew(self, source: Path) -> None:
        fd = _copy(source)
        if self._fd < 0:
            self._fd = fd
            weakref.finalize(self, os.close, fd)
        else:
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)


def _copy(source: Path) -> int:
    """A descriptor, for reading, of a sealed copy. Raises OSError."""
    flags, name = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING, source.name
    try:
        made = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:
        made = os.memfd_create(name, flags)
    try:
        with source.open("rb") as program:
            size = os.fstat(program.fileno()).st_size
            while os.fstat(made).st_size < size:
                if not os.sendfile(made, program.fileno(), None, size):
                    break
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
        # Opened anew, to read alone: what somebody has open for writing cannot be executed.
        return os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)

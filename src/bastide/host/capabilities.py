"""Capabilities of this process: what it may hand on."""

from __future__ import annotations

import functools
from pathlib import Path

NAMES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
"""In the order of their numbers: linux/capability.h."""


def decode(mask: int) -> frozenset[str]:
    """The names of a mask's bits."""
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


@functools.cache
def bounding() -> frozenset[str]:
    """What this process and its children may ever have: `CapBnd` of proc(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return decode(int(line.split()[1], 16))
    return frozenset(NAMES)

"""A process and a container's identity as the guest agent's control messages."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from bastide.hypervisor.frames import Field, fields, joined, u64
from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument
from bastide.model.process import Bundle, Interface, Mount, Process, TerminalSize

SEED = 256
"""Bytes of entropy that a clone gets: a full pool of the kernel's (ChaCha20 key) several times over."""

DEFAULT_SHM = 64 << 20
"""Bytes of /dev/shm that the template has already."""

# linux/capability.h
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
).split()
_BITS = {f"CAP_{name}": number for number, name in enumerate(_CAPABILITIES)}
_UNLIMITED = (1 << 64) - 1


def seeded() -> list[tuple[Field, bytes]]:
    """Fresh entropy and the time: what every clone gets before anything else."""
    return [(Field.SEED, os.urandom(SEED)), (Field.TIME, u64(time.time_ns()))]


def clock() -> bytes:
    """The fields of CLOCK."""
    return fields(seeded())


def terminal_size(size: TerminalSize | None) -> bytes:
    """u16 rows, u16 columns; zeros where the size is unknown."""
    return struct.pack("<HH", *(_clamped(size.rows, size.columns) if size else (0, 0)))


def _limit(name: str, soft: int, hard: int) -> bytes:
    number = getattr(resource, name, None)
    if not isinstance(number, int):
        raise InvalidArgument(f"unknown resource limit {name}")
    return struct.pack("<IQQ", number, soft if soft >= 0 else _UNLIMITED, hard if hard >= 0 else _UNLIMITED)


def specification(process: Process, *, init: bool = False, builtin: bool = False, oom_score: int = 0) -> bytes:
    """The fields of PREPARE and EXEC. Raises InvalidArgument for what no guest could run."""
    words = (*process.args, *process.env, process.cwd, process.user, *process.groups)
    if not process.args or not process.args[0]:
        raise InvalidArgument("no command specified")
    if any("\0" in word for word in words):
        raise InvalidArgument("a command, variable or path holds a NUL character")
    mask = sum(1 << _BITS[name] for name in set(process.capabilities) if name in _BITS)
    items = [
        (Field.ARGS, joined(process.args)),
        (Field.ENV, joined(process.env)),
        (Field.CWD, joined([process.cwd or "/"])),
        (Field.USER, joined([process.user])),
        (Field.CAPABILITIES, u64(_UNLIMITED if process.privileged else mask)),
    ]
    if process.groups:
        items.append((Field.GROUPS, joined(process.groups)))
    if process.terminal:
        items.append((Field.TERMINAL, terminal_size(process.size)))
    if process.stdin:
        items.append((Field.STDIN, b""))
    if process.no_new_privileges:
        items.append((Field.NO_NEW_PRIVILEGES, b""))
    items += [(Field.RLIMIT, _limit(*limit)) for limit in process.rlimits]
    flags = ((init, Field.INIT), (builtin, Field.BUILTIN))
    items += [(tag, b"") for wanted, tag in flags if wanted]
    if oom_score:
        items.append((Field.OOM_SCORE, struct.pack("<i", oom_score)))
    return fields(items)


def _clamped(*values: int) -> tuple[int, ...]:
    return tuple(max(0, min(value, 65535)) for value in values)


def interface(number: int, link: Interface) -> bytes:
    """An interface as lines of text; `number` is the NIC's in the template."""
    lines = [f"nic {number}", f"name {link.name}", f"mac {link.mac}", f"mtu {link.mtu}"]
    lines.append("up 1")
    if any(":" in address for address in link.all_addresses):
        lines.append("ipv6 1")
    lines += [f"address {address}" for address in link.all_addresses]
    lines += [f"gateway {gateway}" for gateway in link.gateways]
    lines += [f"route {destination} {gateway}" for destination, gateway in link.routes]
    if any("\n" in line for line in lines):
        raise InvalidArgument(f"network interface {link.name!r}: a value holds a line break")
    return "\n".join(lines).encode()


def connected(number: int, link: Interface) -> list[tuple[Field, bytes]]:
    """Fields of CONFIGURE and NETWORK: an interface, then its kernel parameters. Raises InvalidArgument."""
    return [(Field.INTERFACE, interface(number, link)), *_sysctls(link.sysctls)]


def _sysctls(pairs: Iterable[tuple[str, str]]) -> list[tuple[Field, bytes]]:
    return [(Field.SYSCTL, joined(pair)) for pair in pairs]


def no_interface(number: int) -> bytes:
    """A NIC that is nobody's, as `interface`."""
    return f"nic {number}\ndown 1".encode()


def _tmpfs(mount: Mount) -> bytes:
    words = [*mount.options, *(["ro"] if mount.read_only else [])]
    return joined([mount.target, ",".join(words)])


def _mounts(mounts: Iterable[Mount]) -> Iterable[tuple[Field, bytes]]:
    """Parents before children, as they are listed; a tree of the host's is named by its number."""
    number = 0
    for mount in mounts:
        if mount.kind == "tmpfs":
            yield Field.TMPFS, _tmpfs(mount)
        elif mount.kind == "bind":
            # What is mounted further down may be written where the top alone is not: the server knows.
            closed = mount.read_only and "ro-non-recursive" not in mount.options
            yield Field.SHARE, joined([str(number), mount.target, "ro" if closed else "rw"])
            number += 1


def files(hosts: Path | None, resolv_conf: Path | None, hostname: Path | None = None) -> list[tuple[Field, bytes]]:
    """The fields of FILES: what the engine keeps up to date."""
    paths = ((Field.HOSTS, hosts), (Field.HOSTNAME_FILE, hostname), (Field.RESOLV, resolv_conf))
    return [(tag, path.read_bytes()) for tag, path in paths if path is not None]


def limits(host: HostConfig, memory: int) -> dict[str, str]:
    """What holds all processes of a guest that has `memory` bytes: files of its cgroup (cgroup-v2)."""
    tight = 0 < host.memory < memory
    # The agent is there as well.
    tasks = str(host.pids_limit + 1) if host.pids_limit and host.pids_limit > 0 else "max"
    swap = str(host.memory_swap - host.memory) if host.memory and host.memory_swap > 0 else "max"
    return {"memory.max": str(host.memory) if tight else "max", "memory.swap.max": swap, "pids.max": tasks}


def limit_fields(files: dict[str, str]) -> list[tuple[Field, bytes]]:
    """Limits as fields of CONFIGURE."""
    return [(Field.LIMIT, joined(pair)) for pair in files.items()]


def rehearsal(nics: int) -> tuple[bytes, bytes]:
    """Fields of FILES and NETWORK that mean nothing: what the guest does with them it does faster the next time."""
    text = b"127.0.0.1 localhost\n"
    contents = [(tag, text) for tag in (Field.HOSTS, Field.HOSTNAME_FILE, Field.RESOLV)]
    links = [
        Interface(
            name=f"eth{number}",
            device="",
            mac=f"02:00:00:00:01:{number:02x}",
            addresses=(f"192.0.2.{number + 2}/24",),  # RFC 5737, TEST-NET-1
            gateways=("192.0.2.1",) if not number else (),
        )
        for number in range(nics)
    ]
    named = [(Field.HOSTNAME, b"localhost")]
    return fields([*contents, *named]), fields((Field.INTERFACE, interface(*link)) for link in enumerate(links))


def identity(bundle: Bundle, *, memory: int = 0, mounted: bool = False, former_nics: int = 0) -> bytes:
    """The fields of CONFIGURE: entropy and time first, then all that makes the clone this container.

    `mounted`: the guest has its root already, from its template or from a saved state.
    `former_nics`: so many may be another container's still. `memory`: the machine's, in bytes.
    """
    host = bundle.host_config
    items = seeded()
    items.append((Field.HOSTNAME, bundle.hostname.encode()))
    if bundle.domainname:
        items.append((Field.DOMAINNAME, bundle.domainname.encode()))
    flags = (
        (host.readonly_rootfs, Field.READONLY),
        (host.auto_remove, Field.DISCARD),
        (host.privileged, Field.PRIVILEGED),
    )
    items += [(tag, b"") for wanted, tag in flags if wanted]
    if not mounted:
        items.append((Field.DISKS, b""))
    items += files(bundle.hosts, bundle.resolv_conf, bundle.hostname_file)
    # Of a VM that is started again it stays the same (machine-id(5): 32 hexadecimal digits, a line).
    items.append((Field.MACHINE_ID, f"{hashlib.sha256(bundle.id.encode()).hexdigest()[:32]}\n".encode()))
    links = bundle.networking.interfaces
    items += [(Field.INTERFACE, no_interface(number)) for number in range(len(links), former_nics)]
    for number, link in enumerate(links):
        items += connected(number, link)
    items += _mounts(bundle.mounts)
    if host.shm_size and host.shm_size != DEFAULT_SHM:
        items.append((Field.SHM_SIZE, u64(host.shm_size)))
    items += limit_fields({name: value for name, value in limits(host, memory).items() if value != "max"})
    items += _sysctls((host.sysctls or {}).items())
    return fields(items)

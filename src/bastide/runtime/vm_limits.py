"""What a HostConfig asks of a VM: processors, and what a guest with a kernel of its own cannot honour."""

from __future__ import annotations

from bastide.hypervisor.machine import Machine
from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument, Unsupported

_OPTIONS = {
    "no-new-privileges": ("", "true", "false"),
    "seccomp": ("unconfined", "builtin"),
    "apparmor": ("unconfined",),
    "label": ("disable",),
    "systempaths": ("unconfined",),
}
"""Security options that say nothing about a host's kernel, with their values."""


def check(host: HostConfig) -> None:
    """Raise Unsupported with the name of the first thing that a VM cannot do."""
    wanted = {
        "--gpus": host.device_requests,
        "--oom-kill-disable": host.oom_kill_disable,
        "--cpu-rt-runtime and --cpu-rt-period": host.cpu_realtime_runtime or host.cpu_realtime_period,
        "--kernel-memory-tcp": host.kernel_memory_tcp,
        "MaskedPaths": host.masked_paths,
        "ReadonlyPaths": host.readonly_paths,
        "--ipc none": host.ipc_mode == "none",
        "--memory-swappiness": host.memory_swappiness is not None and host.memory_swappiness >= 0,
    }
    for name, asked in wanted.items():
        if asked:
            raise Unsupported(f"isolation vm does not offer {name}: leave it out or use --isolation container")
    for option in host.security_opt or []:
        key, _, value = option.replace(":", "=", 1).partition("=")
        if key not in _OPTIONS:
            raise InvalidArgument(f"invalid --security-opt 2: {option!r}")
        if value not in _OPTIONS[key]:
            raise Unsupported(f"isolation vm does not offer --security-opt {key}: its kernel is the guest's own")


def processors(host: HostConfig) -> int:
    """How many virtual processors the limits need; 0 when nothing is said."""
    if host.nano_cpus:
        return -(-host.nano_cpus // 1_000_000_000)
    if host.cpu_quota > 0:
        return -(-host.cpu_quota // (host.cpu_period or 100_000))
    return 0


_KERNEL, _KERNEL_SHARE = 96 << 20, 40
"""Bytes that the guest's kernel and its page tables take of a machine's memory, and the part of the whole beyond
that (measured with Debian's 6.1 in machines of 128 to 256 MB: 95 to 99 MB)."""
_SMALLEST = 128 << 20


def usable(machine: int) -> int:
    """How much of a machine's memory its processes can have, in bytes."""
    return machine - _KERNEL - machine // _KERNEL_SHARE


def machine_memory(host: HostConfig, default: int, most: int) -> int:
    """Bytes of the machine for a memory limit: powers of two, so that many limits share a template and a VM that
    runs has room to grow; `most` is as large as it can be. Without a limit the machine is `default` large."""
    if not host.memory:
        return max(-(-default >> 20) << 20, _SMALLEST)
    size = _SMALLEST
    while usable(size) < host.memory:
        size *= 2
    return most if usable(most) >= host.memory and size > most else size


def check_growth(host: HostConfig, machine: Machine) -> None:
    """Raise Unsupported where a VM that runs cannot grow as far as asked."""
    if host.memory > usable(machine.memory):
        room = usable(machine.memory) >> 20
        raise Unsupported(f"isolation vm cannot grow beyond the {room} MB that it has room for: stop it first")
    if processors(host) > machine.cpus:
        raise Unsupported(f"isolation vm cannot use more than the {machine.cpus} CPUs of its start: stop it first")

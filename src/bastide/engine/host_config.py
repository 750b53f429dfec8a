"""What can be judged of a HostConfig and a Config before anything is made: limits, modes, policies, options.

The rules and the words are Docker's (moby daemon/daemon_unix.go, container.go and volume/mounts/linux_parser.go), for
clients match them. What Docker discards with a warning because the kernel lacks it is refused by name.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bastide.engine import log_options
from bastide.host import cgroups
from bastide.model.container import Config, HealthConfig, HostConfig, RestartPolicy
from bastide.model.container import Mount as Wish
from bastide.model.errors import Conflict, InvalidArgument, Unsupported

DEFAULT_SHM_SIZE = 64 << 20
LEAST_MEMORY = 6 << 20
"""Docker's minimum for `--memory`, in bytes."""
_TMPFS = frozenset(
    "ro rw exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime norelatime strictatime "
    "nostrictatime sync async dirsync mand nomand defaults".split()
)
_TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})
"""Options of a tmpfs: moby daemon/pkg/opts and tmpfs(5)."""
_LEAST_INTERVAL = 1_000_000
_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


def checked(host: HostConfig) -> HostConfig:
    """The same with Docker's defaults filled in. Raises InvalidArgument, Unsupported, Conflict."""
    _check_memory(host)
    _check_cpu(host)
    _check_block_io(host)
    _check_modes(host)
    _check_policy(host)
    for limit in host.ulimits or []:
        if not isinstance(getattr(resource, f"RLIMIT_{limit.name.upper()}", None), int):
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if 0 <= limit.hard < limit.soft:
            raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {limit.name}")
    for text in (host.tmpfs or {}).values():
        _check_tmpfs(text.split(","))
    for mount in host.mounts or []:
        _check_mount(mount)
    return msgspec.structs.replace(
        host,
        shm_size=host.shm_size or DEFAULT_SHM_SIZE,
        network_mode=host.network_mode or "default",
        restart_policy=host.restart_policy if host.restart_policy.name else RestartPolicy(name="no"),
        log_config=log_options.checked(host.log_config),
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or ("host" if host.privileged else "private"),
    )


def _check_memory(host: HostConfig) -> None:
    if 0 < host.memory < LEAST_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if cgroups.unified() and (host.memory_swappiness is not None and host.memory_swappiness >= 0):
        raise Unsupported("HostConfig.MemorySwappiness cannot be honoured: cgroup v2 has no swappiness of a group")
    if cgroups.unified() and host.oom_kill_disable:
        raise Unsupported("HostConfig.OomKillDisable cannot be honoured: cgroup v2 always has the OOM killer")


def _check_cpu(host: HostConfig) -> None:
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set.")
    count = os.cpu_count() or 1
    if host.nano_cpus < 0 or host.nano_cpus > count * 1_000_000_000:
        raise InvalidArgument(f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    present = Path("/sys/devices/system")
    _check_set(host.cpuset_cpus, "cpuset cpus", "CPUs", present / "cpu/online")
    _check_set(host.cpuset_mems, "cpuset mems", "memory nodes", present / "node/online")


def members(text: str) -> set[int]:
    """`0-2,7` as numbers (cpuset(7), "List format"). Raises InvalidArgument."""
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise InvalidArgument(f"invalid format: {text}")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def _check_set(asked: str, what: str, things: str, online: Path) -> None:
    if not asked:
        return
    try:
        wanted = members(asked)
    except InvalidArgument as error:
        raise InvalidArgument(f"Invalid value {asked} for {what}: {error.message}") from error
    available = online.read_text().strip() if online.exists() else "0"
    if not wanted <= members(available):
        raise InvalidArgument(f"Requested {things} are not available - requested {asked}, available: {available}")


def _check_block_io(host: HostConfig) -> None:
    weights = [entry.weight for entry in host.blkio_weight_device or []]
    if any(weight and not 10 <= weight <= 1000 for weight in (host.blkio_weight, *weights)):
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if host.blkio_weight and not cgroups.weighs_block_io():
        raise Unsupported("HostConfig.BlkioWeight cannot be honoured: the kernel has no weights of block I/O")
    if weights and not cgroups.weighs_block_io():
        raise Unsupported("HostConfig.BlkioWeightDevice cannot be honoured: the kernel has no weights of block I/O")


def _check_modes(host: HostConfig) -> None:
    for given, words, what in (
        (host.ipc_mode, ("private", "shareable", "host", "none"), "IPC mode"),
        (host.pid_mode, ("host",), "PID mode"),
        (host.uts_mode, ("host",), "UTS mode"),
        (host.cgroupns_mode, ("private", "host"), "cgroup namespace mode"),
    ):
        joined = what in ("IPC mode", "PID mode") and given.startswith("container:") and given != "container:"
        if given and given not in words and not joined:
            raise InvalidArgument(f"invalid {what}: {given}")


def _check_policy(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in ("", "no"):
        raise Conflict("can't create 'AutoRemove' container with restart policy")


def _check_tmpfs(words: Iterable[str]) -> None:
    for word in filter(None, words):
        name, mark, value = word.partition("=")
        if not (name in _TMPFS_VALUES and value if mark else name in _TMPFS):
            raise InvalidArgument(f'invalid tmpfs option "{word}"')


def _check_mount(mount: Wish) -> None:
    for kind, options in (
        ("bind", mount.bind_options),
        ("volume", mount.volume_options),
        ("tmpfs", mount.tmpfs_options),
    ):
        if mount.type != kind and options is not None:
            raise InvalidArgument(f'{kind.capitalize()}Options must not be specified on mount type "{mount.type}"')
    if (bind := mount.bind_options) is not None:
        if not mount.read_only and bind.read_only_non_recursive:
            raise InvalidArgument("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive")
        if not mount.read_only and bind.read_only_force_recursive:
            raise InvalidArgument("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive")
    if mount.tmpfs_options is not None:
        if mount.tmpfs_options.size_bytes < 0 or mount.tmpfs_options.mode < 0:
            raise InvalidArgument("invalid tmpfs option: size and mode cannot be negative")
        _check_tmpfs("=".join(pair) for pair in mount.tmpfs_options.options or [])


def check_health(check: HealthConfig | None) -> None:
    """Raise InvalidArgument for a health check that makes no sense."""
    if check is None:
        return
    for value, name in (
        (check.interval, "Interval"),
        (check.timeout, "Timeout"),
        (check.start_period, "StartPeriod"),
        (check.start_interval, "StartInterval"),
    ):
        if value and value < _LEAST_INTERVAL:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def warnings(config: Config, host: HostConfig) -> list[str]:
    """What Docker warns of, and what was asked for that weakens the wall."""
    found = []
    if host.network_mode == "host" and host.port_bindings:
        found.append("Published ports are discarded when using host network mode")
    if host.oom_kill_disable and not host.memory:
        found.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    return found

"""From a container's record to what a runtime is handed: process, files, mounts, network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bastide.engine.merge import DEFAULT_PATH, command_line
from bastide.host.capabilities import NAMES as ALL_CAPABILITIES
from bastide.model import process
from bastide.model.config import Settings
from bastide.model.container import Container, HostConfig, Ulimit
from bastide.model.errors import InvalidArgument

# Docker's default set: moby oci/caps/defaults.go, documented under "Runtime privilege and Linux capabilities".
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def _capability(name: str) -> str:
    upper = name.upper()
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in ALL_CAPABILITIES and full != "CAP_ALL":
        raise InvalidArgument(f'invalid CapAdd: unknown capability: "{full}"')
    return full


def capabilities(host: HostConfig) -> tuple[str, ...]:
    """The effective set: Docker's default with `CapAdd` and `CapDrop`; `ALL` in either means all."""
    if host.privileged:
        return ALL_CAPABILITIES
    added = {_capability(name) for name in host.cap_add or []}
    dropped = {_capability(name) for name in host.cap_drop or []}
    base = set(ALL_CAPABILITIES) if "CAP_ALL" in added else set(DEFAULT_CAPABILITIES)
    if "CAP_ALL" in dropped:
        base = set()
    kept = (base | (added - {"CAP_ALL"})) - (dropped - (added if "CAP_ALL" in dropped else set()))
    return tuple(name for name in ALL_CAPABILITIES if name in kept)


def no_new_privileges(host: HostConfig) -> bool:
    """Whether `--security-opt no-new-privileges` was given."""
    return any(
        option.replace(":", "=") in ("no-new-privileges", "no-new-privileges=true")
        for option in host.security_opt or []
    )


def rlimits(wanted: list[Ulimit] | None) -> tuple[tuple[str, int, int], ...]:
    """Limits as `(RLIMIT_…, soft, hard)`."""
    return tuple((f"RLIMIT_{limit.name.upper()}", limit.soft, limit.hard) for limit in wanted or [])


def environment(container: Container) -> tuple[str, ...]:
    """The container's variables over Docker's own: PATH, HOSTNAME, TERM with a terminal."""
    own = container.config.env or []
    names = {entry.split("=", 1)[0] for entry in own}
    given = [DEFAULT_PATH, f"HOSTNAME={hostname(container)}"]
    if container.config.tty:
        given.append("TERM=xterm")
    return tuple([entry for entry in given if entry.split("=", 1)[0] not in names] + [e for e in own if "=" in e])


def hostname(container: Container) -> str:
    """The name that the container has for itself: asked for, the host's with its UTS namespace, or the short id."""
    if container.host_config.uts_mode == "host" and not container.config.hostname:
        return os.uname().nodename
    return container.config.hostname or container.id[:12]


def main_process(container: Container) -> process.Process:
    """The container's own process."""
    host = container.host_config
    size = host.console_size or []
    return process.Process(
        args=tuple(command_line(container.config)),
        env=environment(container),
        cwd=container.config.working_dir or "/",
        user=container.config.user,
        groups=tuple(host.group_add or []),
        terminal=container.config.tty,
        stdin=container.config.open_stdin,
        size=process.TerminalSize(rows=size[0], columns=size[1]) if len(size) == 2 and all(size) else None,
        capabilities=capabilities(host),
        no_new_privileges=no_new_privileges(host),
        rlimits=rlimits(host.ulimits),
        privileged=host.privileged,
    )


def cgroup_path(settings: Settings, container: Container) -> str:
    """Where the container's cgroup is, below each hierarchy's root."""
    return f"/{(container.host_config.cgroup_parent or settings.cgroup_parent).strip('/')}/{container.id}"


def stop_signal(container: Container) -> int:
    """The signal that asks the main process to end."""
    return signal_number(container.config.stop_signal or "SIGTERM")


def signal_number(name: str) -> int:
    """`SIGTERM`, `term`, `15` as a number. Raises InvalidArgument in Docker's words."""
    word = name.strip().upper()
    if word.isdigit():
        if 0 < int(word) <= signal.NSIG - 1:
            return int(word)
        raise InvalidArgument(f"Invalid signal: {name}")
    full = word if word.startswith("SIG") else f"SIG{word}"
    base, plus, offset = full.partition("+")
    found = getattr(signal, base if plus else full, None)
    if not isinstance(found, signal.Signals):
        raise InvalidArgument(f"Invalid signal: {name}")
    return int(found) + (int(offset) if plus and offset.isdigit() else 0)


class Paths:
    """Where a container's files lie: what must survive a reboot, and what need not."""

    def __init__(self, settings: Settings, container_id: str) -> None:
        self.durable = settings.data_root / "containers" / container_id
        self.run = settings.run_root / "containers" / container_id
        self.log = self.durable / "container.log"
        self.hosts = self.durable / "hosts"
        self.hostname = self.durable / "hostname"
        self.resolv_conf = self.durable / "resolv.conf"

    def write(self, path: Path, text: str) -> None:
        """Write one of the files that are mounted into the container, in place: a mount follows the inode."""
        path.write_text(text)
        path.chmod(0o644)

"""What a runtime is handed: a bundle (everything about one container) and processes to run in it.

Nothing here knows which wall stands around it. Paths are the host's unless a comment says otherwise.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bastide.model.container import HostConfig


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the values below."""


class TerminalSize(Struct, frozen=True, kw_only=True):
    """Size of a terminal in characters."""

    rows: int = 24
    columns: int = 80


class Process(Struct, frozen=True, kw_only=True):
    """A process to run behind the wall.

    `user` is as in the image (`name`, `uid`, `user:group`); the runtime looks names up in the
    container's own files, never in the host's. `capabilities` are full names (`CAP_CHOWN`).
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    terminal: bool = False
    stdin: bool = False
    size: TerminalSize | None = None
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    rlimits: tuple[tuple[str, int, int], ...] = ()
    """`(RLIMIT_…, soft, hard)`."""
    privileged: bool = False


class DirectoryRoot(Struct, frozen=True, kw_only=True):
    """A root file system mounted at `path` on the host."""

    path: Path


class DiskRoot(Struct, frozen=True, kw_only=True):
    """A root file system as disks: a read-only `base` (erofs) and a writable `upper` (ext4), both raw."""

    base: Path
    upper: Path


Root = DirectoryRoot | DiskRoot


class Mount(Struct, frozen=True, kw_only=True):
    """A mount inside the container at `target`.

    `kind` is `bind` (a host directory or file) or `tmpfs`; `options` are mount(8)'s words.
    """

    kind: str
    target: str
    source: Path | None = None
    options: tuple[str, ...] = ()
    read_only: bool = False
    propagation: str = ""


class Interface(Struct, frozen=True, kw_only=True):
    """A network interface of the container, as `network` made it.

    `device` is the host's end (a veth, or the tap that QEMU opens); `name` the container's
    (`eth0`). Addresses are CIDR. `routes` are `(destination, gateway)` beyond the default ones;
    `sysctls` are kernel parameters and values, as `(net.ipv4.conf.eth0.log_martians, 1)`.
    """

    name: str
    device: str
    mac: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    mtu: int = 1500
    routes: tuple[tuple[str, str], ...] = ()
    link_local: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()

    @property
    def all_addresses(self) -> tuple[str, ...]:
        """Those that the network gave, then the link-local ones that were asked for."""
        return (*self.addresses, *self.link_local)


class Networking(Struct, frozen=True, kw_only=True):
    """How a container reaches the network.

    `namespace`: the prepared network namespace's file, None where the wall brings its own (VM).
    `host`: the host's namespace is shared. Neither, and no interfaces: only loopback.
    """

    namespace: Path | None = None
    host: bool = False
    interfaces: tuple[Interface, ...] = ()


class Bundle(Struct, frozen=True, kw_only=True):
    """Everything a runtime needs to make one container.

    `directory` is this container's private folder in the run root (0700; gone at reboot): sockets,
    pid files, the OCI bundle. `log_path` gets the output in the CRI log format
    (`<time> <stdout|stderr> <P|F> <line>`); None: no log is kept. With `journal`, a name, it goes to the
    host's journal under that name too. `hosts`, `hostname_file` and
    `resolv_conf` are files the engine wrote and will keep up to date; a VM gets their content.
    """

    id: str
    name: str
    directory: Path
    root: Root
    process: Process
    hostname: str
    host_config: HostConfig
    networking: Networking = Networking()
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hosts: Path | None = None
    hostname_file: Path | None = None
    resolv_conf: Path | None = None
    log_path: Path | None = None
    journal: str = ""
    cgroup_path: str = ""
    """Path below each cgroup hierarchy's root, as `/bastide/<id>`."""
    annotations: dict[str, str] = {}
    namespaces: dict[str, str] = {}
    """Namespaces to share instead of making them: kind (`ipc`, `pid`, `uts`, `cgroup`, `user`) to a path,
    or `host`."""
    stdin_once: bool = False
    architecture: str = ""
    """What the image's programs are for, Go's name; empty: what this host runs."""
    image: str = ""
    """What the user calls the image, for messages."""


class Stats(Struct, frozen=True, kw_only=True):
    """Resource use of a container; bytes, nanoseconds, counts."""

    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_per_core: tuple[int, ...] = ()
    throttled_periods: int = 0
    periods: int = 0
    throttled_time: int = 0
    memory: int = 0
    memory_max: int = 0
    memory_limit: int = 0
    memory_stats: dict[str, int] = {}
    pids: int = 0
    pids_limit: int = 0
    block_read: int = 0
    block_write: int = 0
    interfaces: dict[str, dict[str, int]] = {}

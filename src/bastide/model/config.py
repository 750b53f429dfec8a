"""The daemon's settings: one frozen value, made once at the composition root and handed down."""

from __future__ import annotations

from pathlib import Path

import msgspec

RELOADABLE = ("debug", "log_max_size", "pool_memory")
"""What may change while the daemon runs, when it reads its settings again (SIGHUP); `pool_memory` not back to -1."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the daemon keeps things and what it names them on the host.

    Two daemons with other `data_root`, `run_root`, `bridge`, `bridge_subnet`, `firewall_table` and
    `cgroup_parent` do not touch each other: tests and benches run beside a real installation.
    """

    data_root: Path = Path("/var/lib/bastide")
    run_root: Path = Path("/run/bastide")
    socket_group: str = "bastide"
    debug: bool = False

    bridge: str = "bastide0"
    bridge_subnet: str = "10.87.0.0/16"
    bridge_subnet6: str = ""
    """An IPv6 subnet for the default bridge, as `fd00:88::/64`; empty: IPv4 only, as Docker's."""
    address_pools: tuple[str, ...] = ("10.90.0.0/15",)
    """Where user networks get their /24 from."""
    firewall_table: str = "bastide"
    prepared_namespaces: int = 4
    """How many network namespaces on the default bridge are kept ready for the next starts."""

    containers_configuration: Path = Path("/etc/containers")
    """Where registries.conf(.d), policy.json, registries.d and certs.d are, shared with podman and skopeo."""

    cgroup_parent: str = "bastide"
    runtime: str = ""
    """Runtime of a container where none is named; empty: the first one that probes well."""
    isolation: str = "container"

    vm_memory: int = 256 << 20
    vm_cpus: int = 1
    vm_uid_base: int = 2_000_000_000
    """First of the unprivileged uids that QEMU processes run as, one each."""
    template_limit: int = 4 << 30
    """How many bytes of VM templates are kept."""
    pool_memory: int = -1
    """How many bytes of memory warm VMs may use; 0 turns the pool off, -1 leaves it to the machine's size."""
    guest_root: Path = Path("/usr/local/lib/bastide/guest")
    """Where the guest kernel and the agent were installed by scripts/guest."""

    tcp: str = ""
    """`host:port` for the API over TCP with mutual TLS; empty: none."""
    tls_directory: Path = Path("/etc/bastide/tls")
    insecure_tcp: bool = False
    """Asks by name for TCP without TLS."""
    log_max_size: int = 16 << 20

    def reloaded(self, other: Settings) -> tuple[Settings, list[str]]:
        """The same with what `other` has and a daemon that runs can take over, and the names of what it cannot."""
        taken = {name: getattr(other, name) for name in RELOADABLE}
        if taken["pool_memory"] < 0:
            del taken["pool_memory"]
        settled = msgspec.structs.replace(self, **taken)
        return settled, [name for name in self.__struct_fields__ if getattr(settled, name) != getattr(other, name)]

    @property
    def socket(self) -> Path:
        """The API's unix socket."""
        return self.run_root / "bastide.sock"

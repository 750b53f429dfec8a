"""gVisor: a kernel in user space between the container and the host's, by `runsc` under conmon.

Facts: gvisor.dev/docs and `runsc flags`. The network is gVisor's own stack, which takes addresses and routes
over from the container's namespace when it starts: what changes there later it does not see, and nobody else
can use the namespace. Through the host's stack (`--network host`), read(2) of a socket does not wait in 2022's
version.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bastide.host import cgroups, links, netns
from bastide.host.namespaces import hide_network_settings
from bastide.host.netlink import Netlink
from bastide.host.paths import root_of
from bastide.host.processes import Handle, Spawner
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.container import HostConfig, Isolation
from bastide.model.errors import NotFound, Unsupported
from bastide.model.process import Bundle, DirectoryRoot
from bastide.runtime import Feature, lookup, spec
from bastide.runtime.oci import OCI

_ESRCH = 3
_STARTED = "started"
"""A file in the container's directory: runsc has nothing else to tell a created container by."""


class Runsc(OCI, name="runsc", isolation=Isolation.GVISOR):
    """runsc has the OCI runtime command line, without `update`."""

    features: ClassVar[frozenset[Feature]] = frozenset(
        {
            Feature.PAUSE,
            Feature.STATS,
            Feature.BIND_MOUNTS,
            Feature.NETWORK_NAMESPACE,
            Feature.INIT,
        }
    )
    package = "runsc"
    console_socket = False
    pid_option = "--internal-pid-file"
    read_only = "ro"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._private = True
        self._spawner = Spawner(hide_network_settings)

    def check(self, host: HostConfig) -> None:
        """See the contract."""
        options = spec.security(host.security_opt or [])
        wanted = {
            "--pids-limit": (host.pids_limit or 0) > 0,  # its kernel's threads would be counted
            "--ipc none": host.ipc_mode == "none",
            "--cap-add NET_RAW": {"NET_RAW", "CAP_NET_RAW"} & {name.upper() for name in host.cap_add or []},
            "--security-opt seccomp": options.seccomp not in ("", "unconfined"),
            "--security-opt apparmor": options.apparmor not in ("", "unconfined"),
            "MaskedPaths": host.masked_paths,
            "ReadonlyPaths": host.readonly_paths,
            "BindOptions.ReadOnlyNonRecursive": any(
                mount.bind_options and mount.bind_options.read_only_non_recursive for mount in host.mounts or []
            ),
        }
        for name, asked in wanted.items():
            if asked:
                raise Unsupported(f"isolation gvisor does not offer {name}: leave it out or use --isolation container")

    async def _create(self, bundle: Bundle) -> None:
        for mount in bundle.mounts:
            if mount.propagation.removeprefix("r") in ("shared", "slave"):
                raise Unsupported(f"isolation gvisor does not offer the propagation {mount.propagation}: leave it out")
        limits = bundle.host_config
        if (limits.cpuset_cpus or limits.cpuset_mems) and not cgroups.unified():
            # runsc gives the container's group its set, not those above it, which begin empty.
            await blocking(cgroups.inherit_cpuset, cgroups.Group(bundle.cgroup_path).directory("cpuset").parent)
        if bundle.networking.host:
            raise Unsupported("gVisor does not share the host's network: use a network, or another isolation")
        self._check_command(bundle)
        await blocking(_one_default_route, bundle)
        await super()._create(bundle)
        if bundle.process.terminal and bundle.process.size:
            # runsc does not look at the size that the configuration has.
            self._monitor.resize(bundle.directory, bundle.process.size)

    def _check_command(self, bundle: Bundle) -> None:
        """runsc looks for the program when it starts; what is not in the image can be told before.

        A mount may bring the program, so that nothing is said where there are any.
        """
        if bundle.mounts or not isinstance(bundle.root, DirectoryRoot):
            return
        with root_of(bundle.root.path) as root:
            error = lookup.check(root, bundle.process, "create")
        if error is not None:
            raise error

    async def _release(self, container: str) -> None:
        await super()._release(container)
        (self._directory(container) / _STARTED).touch()

    async def kill(self, container: str, signal: int, exec_id: str | None = None) -> None:
        """See the contract. The pid of an exec is one of gVisor's own kernel."""
        if exec_id is None:
            await super().kill(container, signal)
            return
        pid = self._exec(container, exec_id).pid
        if not pid:
            raise NotFound("the process has ended")
        await self._run("kill", "--pid", str(pid), container, str(signal))

    def _waits(self, container: str) -> bool:
        return not (self._directory(container) / _STARTED).exists()

    def _tree(self, container: str, main: Handle) -> Path:
        """The root as the host has it: the process that the host sees is gVisor's own."""
        return self._config_root(container)

    async def _forget(self, container: str) -> None:
        await super()._forget(container)
        for left in self._state.glob(f"{container}*"):
            left.unlink(missing_ok=True)


def _one_default_route(bundle: Bundle) -> None:
    """Leave the default route by the interface that has gateways in the bundle; runsc refuses several. Blocks."""
    spare = [interface.name for interface in bundle.networking.interfaces if not interface.gateways]
    if bundle.networking.namespace is None or not spare:
        return

    def inside() -> None:
        with Netlink() as channel:
            for name in spare:
                channel.request(links.no_default_routes(links.index_of(name)), tolerated=(_ESRCH,))

    netns.inside(bundle.networking.namespace, inside)

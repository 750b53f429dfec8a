"""gVisor: a kernel in user space between the container and the host's, by `runsc` under conmon.

Facts: gvisor.dev/docs and `runsc flags`. The network is the container's own namespace, used through the
host's stack there (`--network host`): older versions refuse their own stack on newer kernels ("cannot run
with network enabled in root network namespace"), as they take a sysctl for the sign of the root namespace.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bastide.host.paths import root_of
from bastide.host.processes import Handle
from bastide.model.container import Isolation
from bastide.model.errors import NotFound, Unsupported
from bastide.model.process import Bundle, DirectoryRoot
from bastide.runtime import Feature, lookup
from bastide.runtime.oci import OCI

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

    @property
    def _command(self) -> tuple[str, ...]:
        return (*super()._command, "--network", "host")

    async def _create(self, bundle: Bundle) -> None:
        if bundle.networking.host:
            raise Unsupported("gVisor does not share the host's network: use a network, or another isolation")
        self._check_command(bundle)
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

"""The Runtime contract: what the engine asks of whatever stands around a container.

Ten verbs; everything optional is one of the small protocols below, announced by a `Feature`. The
engine asks for a feature, never for a name. A backend is one file in this package:

    class Crun(Runtime, name="crun", isolation=Isolation.CONTAINER): ...

`runtimes()` lists the names; `load(name)` imports the file that defines it. The contract suite
(`tests/contract/test_runtime.py`) runs over every registered name that probes well on the host.

A process is named by `(container id, exec id)`; exec id None is the container's main process.
Every call is safe to repeat after a crash of the daemon: the truth is what the host says.
"""

from __future__ import annotations

import abc
import enum
import importlib
import inspect
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from bastide.model.config import Settings
from bastide.model.container import HostConfig, Isolation
from bastide.model.errors import InvalidArgument
from bastide.model.pool import ANY_IMAGE, Named, PoolState
from bastide.model.process import Bundle, Interface, Process, Root, Stats, Struct, TerminalSize


class Feature(enum.StrEnum):
    """What a runtime can do beyond the ten verbs."""

    PAUSE = "pause"
    UPDATE = "update"
    STATS = "stats"
    TOP = "top"
    FILES = "files"
    BIND_MOUNTS = "bind-mounts"
    HOST_VIEW = "host-view"
    """`/proc/PID/root` of the main process is the container's own tree."""
    NETWORK_NAMESPACE = "network-namespace"
    HOST_NETWORK = "host-network"
    HOTPLUG_NETWORK = "hotplug-network"
    """Networks can change while it runs: in its namespace, or by `Hotplugging`."""
    SHARED_NAMESPACES = "shared-namespaces"
    PRIVILEGED = "privileged"
    DEVICES = "devices"
    SYSCTLS = "sysctls"
    INIT = "init"
    SNAPSHOT = "snapshot"
    CLONE = "clone"
    PREWARM = "prewarm"
    POOL = "pool"
    OTHER_ARCHITECTURES = "other-architectures"


class Phase(enum.StrEnum):
    """Where a container's main process is, as the host tells it."""

    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Probe(Struct, frozen=True, kw_only=True):
    """Whether a runtime works on this host. `reason` is one line, with what to do, when it does not."""

    usable: bool
    version: str = ""
    path: str = ""
    reason: str = ""


class RuntimeState(Struct, frozen=True, kw_only=True):
    """The truth about a container. `exit_code` is set when stopped and known."""

    phase: Phase
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False


class Exit(Struct, frozen=True, kw_only=True):
    """How a process ended: its code (128+n for signal n) and whether the kernel killed it for memory."""

    code: int
    oom_killed: bool = False


class Stream(enum.IntEnum):
    """Which stream a piece of output belongs to; the numbers are Docker's framing."""

    STDOUT = 1
    STDERR = 2


class Stdio(abc.ABC):
    """A live connection to a process's streams. Closing it does not end the process."""

    @abc.abstractmethod
    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Pieces of output in order; ends when the process has closed its output."""

    @abc.abstractmethod
    async def write(self, data: bytes) -> None:
        """Write to the process's stdin; waits when it does not read."""

    @abc.abstractmethod
    async def close_stdin(self) -> None:
        """End of file on stdin."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of the streams."""


_FILES = {
    "crun": "oci",
    "runc": "oci",
    "runsc": "gvisor",
    "qemu": "qemu",
}
"""Which file of this package defines a runtime: data, so that listing the names imports nothing."""


class Runtime(abc.ABC):
    """A wall. One object serves all its containers; made once with the daemon's settings."""

    name: ClassVar[str]
    isolation: ClassVar[Isolation]
    snapshotter: ClassVar[str] = "overlay"
    features: ClassVar[frozenset[Feature]] = frozenset()
    registry: ClassVar[dict[str, type[Runtime]]] = {}

    def __init_subclass__(cls, *, name: str = "", isolation: Isolation | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name and isolation and not inspect.isabstract(cls):
            cls.name, cls.isolation = name, isolation
            Runtime.registry[name] = cls

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def expect(self) -> None:  # noqa: B027
        """A container is about to be made: begin what can be begun. Returns at once; a hint only."""

    def check(self, host: HostConfig) -> None:  # noqa: B027
        """Refuse by name what this wall cannot do and no feature stands for. Raises Unsupported, InvalidArgument."""

    @abc.abstractmethod
    async def probe(self) -> Probe:
        """Whether this runtime works here. Cheap after the first call; never raises."""

    @abc.abstractmethod
    async def create(self, bundle: Bundle) -> None:
        """Make the container; its process exists and waits for `start`.

        Raises InvalidArgument (a command that cannot be run: message begins with the command),
        NotFound (no such file in the image), Unsupported, HostError, GuestError. On error nothing is left.
        """

    @abc.abstractmethod
    async def start(self, container: str) -> int:
        """Let the main process run; gives its pid on the host (for a VM, the hypervisor's)."""

    @abc.abstractmethod
    async def exec(self, container: str, exec_id: str, process: Process) -> Stdio:
        """Run one more process; the streams are connected before it starts."""

    @abc.abstractmethod
    async def attach(self, container: str) -> Stdio:
        """Connect to the main process's streams; any number of times, also before `start`."""

    @abc.abstractmethod
    async def kill(self, container: str, signal: int, exec_id: str | None = None) -> None:
        """Send a signal (a number). Raises NotFound when the process is gone."""

    @abc.abstractmethod
    async def wait(self, container: str, exec_id: str | None = None) -> Exit:
        """Wait for the process to end; output is complete and logged by then. May be called by many."""

    @abc.abstractmethod
    async def resize(self, container: str, size: TerminalSize, exec_id: str | None = None) -> None:
        """Tell the terminal its new size."""

    @abc.abstractmethod
    async def state(self, container: str) -> RuntimeState:
        """What the host says about it now; `Phase.ABSENT` when it knows nothing."""

    @abc.abstractmethod
    async def delete(self, container: str) -> None:
        """Remove every trace on the host, killing what is left. Repeatable; absent is no error."""


@runtime_checkable
class Pausing(Protocol):
    """Feature.PAUSE."""

    async def pause(self, container: str) -> None:
        """Stop it from being scheduled."""

    async def resume(self, container: str) -> None:
        """Let it go on."""


@runtime_checkable
class Reopening(Protocol):
    """Runtimes whose log can be moved aside for rotation."""

    async def reopen_log(self, container: str) -> None:
        """Write to a new file at the log's path from now on."""


@runtime_checkable
class MemoryWatching(Protocol):
    """Runtimes that tell of memory that runs out as it happens; `wait` tells it at the end."""

    async def memory_ran_out(self, container: str) -> bool:
        """Wait until any of its processes is killed for want of memory; False when it is deleted before that."""


@runtime_checkable
class Emulating(Protocol):
    """Feature.OTHER_ARCHITECTURES: programs for processors that the host's is none of."""

    async def emulate(self, wanted: str) -> None:
        """Whether an image for the architecture `wanted` (Go's name) runs here. Raises Unsupported: what is missing."""


@runtime_checkable
class Updating(Protocol):
    """Feature.UPDATE."""

    async def update(self, container: str, resources: HostConfig) -> None:
        """Apply the limits of `resources` to the running container."""


@runtime_checkable
class Measuring(Protocol):
    """Feature.STATS."""

    async def stats(self, container: str) -> Stats:
        """Resource use now."""


@runtime_checkable
class Listing(Protocol):
    """Feature.TOP."""

    async def processes(self, container: str) -> Sequence[int]:
        """Pids of its processes, in the host's numbering or, for a VM, the guest's."""

    async def top(self, container: str, arguments: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """The titles and rows of `ps ARGUMENTS` for its processes alone."""


@runtime_checkable
class Files(Protocol):
    """Feature.FILES: for roots that the host cannot reach (disks of a VM). Paths are the container's.

    Raises NotFound, InvalidArgument, GuestError.
    """

    def at_rest(self, bundle: Bundle) -> AbstractAsyncContextManager[None]:
        """Meanwhile the calls below reach the files of a container that does not run; nothing of it runs.

        What was written is on its root when the block has ended. The caller keeps it from being started.
        """

    async def stat_path(self, container: str, path: str) -> dict[str, Any]:
        """`name`, `size`, `mode` (Go's FileMode bits), `mtime`, `linkTarget`."""

    def get_archive(self, container: str, path: str, *, own: bool = False) -> AsyncIterator[bytes]:
        """The file or directory as a tar stream, named by its last component.

        `own`: without anything that is mounted there, which is no part of the container's files.
        """

    async def put_archive(
        self, container: str, path: str, data: AsyncIterator[bytes], *, no_overwrite_dir: bool = False, owner: str = ""
    ) -> None:
        """Unpack a tar stream into the directory `path`.

        `no_overwrite_dir`: no directory is replaced by a file, nor the reverse. `owner`: a user (`name`, `uid`,
        `user:group`, by the container's own files) to whom all of it belongs; empty: as the archive says.
        """

    async def changes(self, container: str) -> list[tuple[int, str]]:
        """What differs from the image: `(0 changed | 1 added | 2 deleted, path)`, sorted by path."""


@runtime_checkable
class Hotplugging(Protocol):
    """Networks (Feature.HOTPLUG_NETWORK) of a running container that has no network namespace on the host."""

    async def plug(self, container: str, interface: Interface) -> None:
        """Give it one more interface, whose tap is there already. Raises ResourceExhausted (it has no more to
        spare), Conflict (paused), GuestError."""

    async def unplug(self, container: str, interface: Interface) -> None:
        """Take an interface from it; its tap is removed after that. Raises Conflict, GuestError."""

    async def rewrite(self, container: str, hosts: Path, resolv_conf: Path) -> None:
        """These two of its files have other contents now."""


@runtime_checkable
class Snapshotting(Protocol):
    """Feature.SNAPSHOT and Feature.CLONE: the state of a running container, memory included."""

    async def save(self, container: str, directory: Path, *, lasting: bool = True) -> None:
        """Write memory and disk state into `directory` while it runs; it goes on afterwards. What is not `lasting`
        only this daemon can restore, sooner."""

    async def check_saved(self, directory: Path) -> None:
        """Raise Conflict when a saved state cannot be restored here, NotFound when there is none."""

    async def restore(self, bundle: Bundle, directory: Path) -> None:
        """Make `bundle` from a saved state; it runs when this returns."""


@runtime_checkable
class Prewarming(Protocol):
    """Feature.PREWARM: what a first start would wait for can be made beforehand."""

    async def prewarm(self, root: Root | None = None, first: Process | None = None, image: Named = ANY_IMAGE) -> None:
        """Make what a container with the default limits needs: of any image, or of one whose containers have a root
        like `root` and run `first`."""


@runtime_checkable
class Pooling(Protocol):
    """Feature.POOL: containers that are half made wait for their start."""

    def pool(self) -> PoolState:
        """What waits."""

    def resize_pool(self, limit: int) -> None:
        """Let those that wait use `limit` bytes of memory; 0 lets all of them go."""


def runtimes() -> Sequence[str]:
    """The names of all runtimes, whether or not they work here."""
    return tuple(_FILES)


def load(name: str) -> type[Runtime]:
    """The class of a runtime. Raises InvalidArgument for a name that nobody registered."""
    if name not in _FILES:
        raise InvalidArgument(f"unknown runtime {name!r}: choose one of {', '.join(_FILES)}")
    if name not in Runtime.registry:
        importlib.import_module(f"bastide.runtime.{_FILES[name]}")
    return Runtime.registry[name]

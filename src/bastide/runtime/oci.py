"""Containers by an OCI runtime program under conmon: crun, and runc by name.

`run_root/<name>/state` is the program's own root, `run_root/<name>/bundles/<id>` a link to the
container's directory, by which everything is found again after the daemon's restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal as signals
import stat
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar

import msgspec

from bastide.host import binfmt, cgroups, mounts
from bastide.host.namespaces import forget_hidden, hide_hybrid, hybrid_is_refused, same_place
from bastide.host.paths import root_of, write_whole
from bastide.host.processes import Handle, Spawner
from bastide.host.sealed import Sealed
from bastide.host.syscalls import blocking, run, wrap
from bastide.model.config import Settings
from bastide.model.container import HostConfig, Isolation
from bastide.model.errors import BastideError, Conflict, InvalidArgument, NotFound, Unsupported
from bastide.model.process import Bundle, DirectoryRoot, Mount, Process, Stats, TerminalSize
from bastide.runtime import (
    Exit,
    Feature,
    Phase,
    Probe,
    Runtime,
    RuntimeState,
    Stdio,
    foreground,
    limits,
    lookup,
    spec,
    targets,
)
from bastide.runtime.joining import Joining
from bastide.runtime.monitor import Launch, Monitor, Refused, exit_code, find, memory_ran_out
from bastide.runtime.refusals import RuntimeFailed, refusal
from bastide.runtime.staging import stage
from bastide.runtime.tables import interfaces, select

_INITS = ("tini-static", "catatonit", "docker-init")
"""Packaged programs that reap and forward signals, all static; the first that is installed is used."""
_END_SECONDS = 10.0
_KEPT_CODES = 256
"""How many exit codes of execs are kept for those who ask late."""

FEATURES = frozenset(
    {
        Feature.PAUSE,
        Feature.UPDATE,
        Feature.STATS,
        Feature.TOP,
        Feature.BIND_MOUNTS,
        Feature.HOST_VIEW,
        Feature.NETWORK_NAMESPACE,
        Feature.HOST_NETWORK,
        Feature.HOTPLUG_NETWORK,
        Feature.SHARED_NAMESPACES,
        Feature.PRIVILEGED,
        Feature.DEVICES,
        Feature.SYSCTLS,
        Feature.INIT,
        Feature.OTHER_ARCHITECTURES,
    }
)


class _Process(msgspec.Struct, frozen=True):
    apparmor: str = msgspec.field(name="apparmorProfile", default="")
    oom_score: int = msgspec.field(name="oomScoreAdj", default=0)


class _Linux(msgspec.Struct, frozen=True):
    cgroup: str = msgspec.field(name="cgroupsPath", default="")


class _Root(msgspec.Struct, frozen=True):
    path: str = ""


class _Config(msgspec.Struct, frozen=True):
    """What is read back from a container's config.json."""

    process: _Process = _Process()
    linux: _Linux = _Linux()
    root: _Root = _Root()


class OCI(Runtime):
    """Any program with the OCI runtime command line; a subclass says its name and what it does better."""

    features: ClassVar[frozenset[Feature]] = FEATURES
    package: ClassVar[str] = ""
    compiled_filters: ClassVar[bool] = False
    """Whether the program takes a filter that is compiled already."""
    console_socket: ClassVar[bool] = True
    """Whether its `exec` hands the terminal over in the foreground too."""
    pid_option: ClassVar[str] = "--pid-file"
    read_only: ClassVar[str] = "rro"
    """Its word for a bind that is read-only all the way down (runtime-spec, config.md, "Mounts")."""
    terminal_options: ClassVar[tuple[str, ...]] = ()
    """What else its `exec` is told when it is given a terminal of ours."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._home = settings.run_root / self.name
        self._bundles = self._home / "bundles"
        self._private = hybrid_is_refused()
        self._spawner = Spawner(hide_hybrid if self._private else None)
        self._host: spec.Host | None = None
        self._warm = False
        self._moves = cgroups.Moves()
        self._probe: Probe | None = None
        self._monitor_made: Monitor | None = None
        self._configs: dict[str, _Config] = {}
        self._execs: dict[tuple[str, str], foreground.Foreground] = {}
        self._ended_execs: OrderedDict[tuple[str, str], int] = OrderedDict()

    def expect(self) -> None:
        """See the contract: the kernel's part of a start begins at once, while the rest is prepared."""
        self._moves.expect()

    # -- what is here --------------------------------------------------------------------------

    async def probe(self) -> Probe:
        """Asks the program for its version; the verdict is kept when it is good."""
        if self._probe is None or not self._probe.usable:
            self._probe = await self._ask()
        return self._probe

    async def _ask(self) -> Probe:
        path = shutil.which(self.name)
        if path is None:
            return Probe(usable=False, reason=f"{self.name} is not installed: apt-get install {self.package}")
        if os.geteuid() != 0:
            return Probe(usable=False, path=path, reason=f"{self.name} needs root here: run the daemon as root")
        if not cgroups.controllers():
            return Probe(usable=False, path=path, reason="no cgroup controllers: mount cgroup2 on /sys/fs/cgroup")
        try:
            find()
            said = await run([path, "--version"], timeout=10)
        except BastideError as error:
            return Probe(usable=False, path=path, reason=error.message)
        if said.code:
            return Probe(usable=False, path=path, reason=f"{path} --version: {said.complaint}")
        first = said.stdout.decode(errors="replace").split("\n", 1)[0]
        return Probe(usable=True, path=path, version=first.removeprefix(f"{self.name} version ").strip())

    @property
    def _state(self) -> Path:
        return self._home / "state"

    @property
    def _program(self) -> str:
        """The program's path."""
        return shutil.which(self.name) or self.name

    @property
    def _command(self) -> tuple[str, ...]:
        """The program's command line up to the verb."""
        return (self._program, "--root", str(self._state))

    @property
    def _monitor(self) -> Monitor:
        program, *arguments = self._command
        if self._monitor_made is None:
            self._monitor_made = Monitor(Path(program), arguments, self._spawner)
        return self._monitor_made

    async def _run(self, *words: str) -> None:
        """Run a verb of the program. Raises RuntimeFailed."""
        finished = await self._spawner.run([*self._command, *words])
        if finished.code:
            raise RuntimeFailed(f"{self.name} {words[0]}: {finished.complaint}")

    def _directory(self, container: str) -> Path:
        """A container's directory. Raises NotFound."""
        try:
            return (self._bundles / container).readlink()
        except OSError as error:
            raise NotFound(f"container {container} is not running") from error

    def _config(self, container: str) -> _Config:
        """What its config.json says. Raises NotFound."""
        known = self._configs.get(container)
        if known is None:
            try:
                data = (self._directory(container) / "config.json").read_bytes()
            except OSError as error:
                raise NotFound(f"container {container} is not running") from error
            known = self._configs[container] = msgspec.json.decode(data, type=_Config)
        return known

    def _group(self, container: str) -> cgroups.Group:
        return cgroups.Group(self._config(container).linux.cgroup)

    def _process(self, container: str) -> Handle:
        """The main process, held. Raises NotFound when it has ended. Close it."""
        directory = self._directory(container)
        handle = self._monitor.process(container, directory) or self._orphan(container, directory)
        if handle is None:
            raise NotFound(f"container {container} is not running")
        return handle

    def _orphan(self, container: str, directory: Path) -> Handle | None:
        """The main process when its conmon was killed: still in the container's cgroup."""
        try:
            handle = Handle.open(int((directory / "pid").read_text()))
        except (OSError, ValueError, NotFound):
            return None
        if self._group(container).holds(handle.pid) and handle.alive:
            return handle
        handle.close()
        return None

    # -- the ten verbs -------------------------------------------------------------------------

    async def create(self, bundle: Bundle) -> None:
        """See the contract."""
        self.expect()
        if not (probe := await self.probe()).usable:
            raise Unsupported(f"runtime {self.name} does not work here: {probe.reason}")
        if (await self.state(bundle.id)).phase not in (Phase.ABSENT, Phase.STOPPED):
            raise Conflict(f"container {bundle.id} is running already")
        await self.delete(bundle.id)
        try:
            for folder in (self._state, self._bundles, bundle.directory):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._bundles / bundle.id).symlink_to(bundle.directory)
            await self._create(bundle)
        except BaseException as error:
            await self.delete(bundle.id)
            if isinstance(error, OSError):
                raise wrap(error, "create") from error
            raise

    async def _create(self, bundle: Bundle) -> None:
        if self._host is None:
            self._host = spec.Host.detect()
        if isinstance(bundle.root, DirectoryRoot) and bundle.mounts:
            await blocking(targets.check, bundle.root.path, bundle.mounts)
        wanted = _with_init(bundle) if bundle.host_config.init else bundle
        if self._private:
            await self._see(wanted)
        async with AsyncExitStack() as until:
            staged = await stage(wanted, self._spawner, private=self._private, until=until)
            write_whole(bundle.directory / "config.json", await self._spec(staged))
            launch = Launch(
                id=bundle.id,
                directory=bundle.directory,
                log_path=bundle.log_path,
                terminal=bundle.process.terminal,
                stdin=bundle.process.stdin,
                keep_stdin=bundle.process.terminal or not bundle.stdin_once,
                journal=bundle.journal,
            )
            try:
                await self._monitor.create(launch)
            except Refused as error:
                raise refusal(str(error), bundle.process.args[0], "create") from error

    async def _spec(self, bundle: Bundle) -> bytes:
        """The configuration. The first one compiles a filter, which takes a while: off the event loop."""
        if self._warm:
            return self._build(bundle)
        self._warm = True
        return await blocking(self._build, bundle)

    def _build(self, bundle: Bundle) -> bytes:
        assert self._host is not None
        return spec.build(bundle, self._host, compiled=self.compiled_filters, read_only=self.read_only)

    async def _see(self, bundle: Bundle) -> None:
        """See to it that the namespace of the programs has the container's root and directory as they are now."""
        files = (bundle.hosts, bundle.hostname_file, bundle.resolv_conf)
        places = [bundle.directory, *(file for file in files if file is not None)]
        if isinstance(bundle.root, DirectoryRoot):
            places.append(bundle.root.path)
        seen = [(place, place.stat()) for place in places]
        if not await self._spawner.call(lambda: all(same_place(place, found) for place, found in seen)):
            self._spawner.renew()

    async def start(self, container: str) -> int:
        """See the contract."""
        directory = self._directory(container)
        await self._release(container)
        return int((directory / "pid").read_text())

    async def _release(self, container: str) -> None:
        """Let the created process go on: the program's `start`."""
        await self._run("start", container)

    async def exec(self, container: str, exec_id: str, process: Process) -> Stdio:
        """See the contract."""
        if self._host is None:
            self._host = spec.Host.detect()
        directory = self._directory(container) / "execs"
        directory.mkdir(exist_ok=True, mode=0o700)
        config = self._config(container).process
        main = self._process(container)
        try:
            tree = self._tree(container, main)
            section = spec.process(process, tree, self._host)
            with root_of(tree) as root:
                error = lookup.check(root, process)
        finally:
            main.close()
        if error is not None:
            raise error
        section["oomScoreAdj"] = config.oom_score
        if config.apparmor and not process.privileged:
            section["apparmorProfile"] = config.apparmor
        command, entrance = self._entrance(container)
        order = foreground.Order(
            argv=command,
            container=container,
            id=exec_id,
            directory=directory,
            process=msgspec.json.encode(section),
            command=process.args[0],
            terminal=process.terminal,
            stdin=process.stdin,
            size=process.size,
            console_socket=self.console_socket,
            pid_option=self.pid_option,
            terminal_options=self.terminal_options,
            entrance=entrance,
        )
        started = await foreground.start(order, self._spawner)
        self._execs[container, exec_id] = started
        return started.stdio

    def _entrance(self, container: str) -> tuple[tuple[str, ...], foreground.Entrance | None]:
        """The program's command line for an exec, and the way in when it is started from within the cgroups."""
        return self._command, None

    def _tree(self, container: str, main: Handle) -> Path:
        """Where the container's files are seen as it sees them."""
        return Path(f"/proc/{main.pid}/root")

    def _exec(self, container: str, exec_id: str) -> foreground.Foreground:
        try:
            return self._execs[container, exec_id]
        except KeyError as error:
            raise NotFound(f"No such exec instance: {exec_id}") from error

    async def attach(self, container: str) -> Stdio:
        """See the contract."""
        return await self._monitor.attach(self._directory(container))

    async def kill(self, container: str, signal: int, exec_id: str | None = None) -> None:
        """See the contract. A paused container is resumed to die: a frozen process handles no signal."""
        if exec_id is not None:
            self._exec(container, exec_id).send(signal)
            return
        handle = self._process(container)
        try:
            handle.send(signal)
        finally:
            handle.close()
        if signal == signals.SIGKILL:
            self._thaw(container)

    def _thaw(self, container: str) -> None:
        with contextlib.suppress(OSError, NotFound):
            group = self._group(container)
            if group.frozen():
                group.freeze(False)

    async def wait(self, container: str, exec_id: str | None = None) -> Exit:
        """See the contract."""
        if exec_id is not None:
            return Exit(code=await self._wait_exec(container, exec_id))
        directory = self._directory(container)
        group = self._group(container)
        code = await self._monitor.wait(container, directory)
        orphan = self._orphan(container, directory) if exit_code(container, directory) is None else None
        if orphan is not None:
            # Its monitor was killed: the process goes on, and nobody will know its exit code.
            await orphan.ended()
            orphan.close()
        return Exit(code=code, oom_killed=group.oom_kills() > 0)

    async def memory_ran_out(self, container: str) -> bool:
        """See the contract."""
        return await memory_ran_out(self._directory(container))

    async def _wait_exec(self, container: str, exec_id: str) -> int:
        key = (container, exec_id)
        if key in self._ended_execs:
            return self._ended_execs[key]
        started = self._exec(container, exec_id)
        code = await started.wait()
        if self._execs.pop(key, None) is not None:
            started.close()
            self._ended_execs[key] = code
            if len(self._ended_execs) > _KEPT_CODES:
                self._ended_execs.popitem(last=False)
        return code

    async def resize(self, container: str, size: TerminalSize, exec_id: str | None = None) -> None:
        """See the contract."""
        if exec_id is not None:
            self._exec(container, exec_id).resize(size)
        else:
            self._monitor.resize(self._directory(container), size)

    async def state(self, container: str) -> RuntimeState:
        """See the contract."""
        try:
            directory, group = self._directory(container), self._group(container)
        except NotFound:
            return RuntimeState(phase=Phase.ABSENT)
        code = exit_code(container, directory)
        try:
            handle = self._process(container)
        except NotFound:
            return RuntimeState(phase=Phase.STOPPED, exit_code=code, oom_killed=group.oom_kills() > 0)
        handle.close()
        phase = Phase.PAUSED if group.frozen() else Phase.RUNNING
        if self._waits(container):
            phase = Phase.CREATED
        return RuntimeState(phase=phase, pid=handle.pid, oom_killed=group.oom_kills() > 0)

    def _waits(self, container: str) -> bool:
        """Whether the main process waits for its start: both programs remove the fifo that it waits at."""
        return (self._state / container / "exec.fifo").exists()

    async def delete(self, container: str) -> None:
        """See the contract."""
        try:
            directory = self._directory(container)
        except NotFound:
            return
        for key in [key for key in self._execs if key[0] == container]:
            self._execs.pop(key).close()
        with contextlib.suppress(NotFound):
            group = self._group(container)
            await self._end(container, directory, group)
            if self._private:
                await self._spawner.call(lambda: forget_hidden(group.path))
        await self._monitor.forget(container, directory)
        await self._forget(container)
        if any(directory.glob("mount[0-9]*")):
            await self._spawner.call(lambda: _unmount_staged(directory))
        await blocking(shutil.rmtree, directory, ignore_errors=True)
        self._configs.pop(container, None)
        (self._bundles / container).unlink(missing_ok=True)

    async def _end(self, container: str, directory: Path, group: cgroups.Group) -> None:
        """Kill what is left of it and remove its cgroups."""
        with contextlib.suppress(NotFound):
            handle = self._process(container)
            try:
                handle.send(signals.SIGKILL)
                self._thaw(container)
                await _ended(handle)
            finally:
                handle.close()
        await self._monitor.wait(container, directory)
        await empty(group)

    async def _forget(self, container: str) -> None:
        """Remove what the program keeps about it."""
        if (self._state / container).exists():
            await self._run("delete", "--force", container)

    def _config_root(self, container: str) -> Path:
        """The root as the host has it."""
        return Path(self._config(container).root.path)

    # -- features ------------------------------------------------------------------------------

    async def emulate(self, wanted: str) -> None:
        """See Emulating: the kernel hands such programs to qemu-user."""
        await blocking(binfmt.need, wanted)

    async def pause(self, container: str) -> None:
        """See Pausing."""
        await self._freeze(container, True)

    async def resume(self, container: str) -> None:
        """See Pausing."""
        await self._freeze(container, False)

    async def _freeze(self, container: str, frozen: bool) -> None:
        group = self._group(container)
        if not group.exists():
            raise NotFound(f"container {container} is not running")
        await blocking(group.freeze, frozen)

    async def reopen_log(self, container: str) -> None:
        """See Reopening."""
        self._monitor.reopen_log(self._directory(container))

    async def update(self, container: str, resources: HostConfig) -> None:
        """See Updating."""
        file = self._directory(container) / "resources.json"
        file.write_bytes(msgspec.json.encode(limits.limits(resources)))
        await self._run("update", "--resources", str(file), container)

    async def stats(self, container: str) -> Stats:
        """See Measuring."""
        handle = self._process(container)
        handle.close()
        found = self._group(container).stats()
        return msgspec.structs.replace(found, interfaces=interfaces(handle.pid))

    async def processes(self, container: str) -> Sequence[int]:
        """See Listing."""
        return self._group(container).processes()

    async def top(self, container: str, arguments: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """See Listing."""
        listed = await run(["ps", *(arguments or ["-ef"])], timeout=10)
        if listed.code:
            raise InvalidArgument(f"error running ps: {listed.complaint}")
        return select(listed.stdout.decode(errors="replace"), set(await self.processes(container)))


async def _ended(handle: Handle) -> None:
    """Wait for a process that was killed. Raises RuntimeFailed when it hangs in the kernel."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            await handle.ended()
    except TimeoutError as error:
        raise RuntimeFailed(f"process {handle.pid} was killed and does not end: it waits for a device") from error


async def empty(group: cgroups.Group) -> None:
    """End every process of a group and remove it."""
    for _ in range(100):
        for pid in group.processes():
            with contextlib.suppress(NotFound):
                handle = Handle.open(pid)
                try:
                    if group.holds(pid):
                        handle.send(signals.SIGKILL)
                        await _ended(handle)
                finally:
                    handle.close()
        if group.remove():
            return
        # The kernel lets go of a group a moment after its last process has ended, and tells nobody.
        await asyncio.sleep(0.01)
    raise RuntimeFailed(f"cgroup {group.path} cannot be removed: its processes do not end")


def _unmount_staged(directory: Path) -> None:
    for path in directory.glob("mount[0-9]*"):
        mounts.withdraw(path)


def _with_init(bundle: Bundle) -> Bundle:
    """The bundle with the packaged init in it. Raises Unsupported when none is installed."""
    path = next((found for name in _INITS if (found := shutil.which(name))), None)
    if path is None:
        raise Unsupported("--init needs a packaged init: apt-get install tini")
    mount = Mount(kind="bind", target=spec.INIT_TARGET, source=Path(path), options=("bind",), read_only=True)
    return msgspec.structs.replace(bundle, mounts=(*bundle.mounts, mount))


class Crun(OCI, name="crun", isolation=Isolation.CONTAINER):
    """The default: small and quick."""

    package = "crun"
    compiled_filters = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._sealed = Sealed()
        self._joining = Joining(settings.guest_root / "join", self._state, self._home / "joined")

    @property
    def _program(self) -> str:
        """A sealed copy, which a container cannot write to: crun makes no copy of its own each time (1.4 ms)."""
        found = shutil.which(self.name)
        return self._sealed.copy(Path(found)) if found else self.name

    def _entrance(self, container: str) -> tuple[tuple[str, ...], foreground.Entrance | None]:
        """See the base: on version 1 hosts, from within."""
        entrance = self._joining.entrance(container, self._group(container))
        if entrance is None:
            return super()._entrance(container)
        return (self._program, "--root", str(self._joining.root)), entrance

    async def _release(self, container: str) -> None:
        """What `crun start` does, without its 4 ms: one byte into the fifo that the process waits at.

        The fifo is removed first: its absence means started (crun's status.c, since 0.1). Where
        nothing waits at it as expected, the program is asked to do it.
        """
        fifo = self._state / container / "exec.fifo"
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            await super()._release(container)
            return
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                fifo.unlink()
                os.write(fd, b"\0")
                return
        finally:
            os.close(fd)
        await super()._release(container)

    async def _forget(self, container: str) -> None:
        """Its processes and cgroups are gone: what is left of it is a folder of files."""
        await blocking(shutil.rmtree, self._state / container, ignore_errors=True)
        self._joining.forget(container)


class Runc(OCI, name="runc", isolation=Isolation.CONTAINER):
    """The reference."""

    package = "runc"
    console_socket = False
    terminal_options = ("--tty",)

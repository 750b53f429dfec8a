"""Start, run, end, restart: the life of a container's main process, whatever wall stands around it."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import time
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path

from bastide.engine import bundle as bundles
from bastide.engine import log_options, mounts
from bastide.engine.attach import Attachments
from bastide.engine.backends import Backends
from bastide.engine.clock import now
from bastide.engine.health import Health
from bastide.engine.ledger import Condition, Ledger, Waited
from bastide.engine.networks import Networks
from bastide.engine.tasks import Tasks
from bastide.engine.volumes import Volumes
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.container import Container, Isolation, Status
from bastide.model.errors import (
    BastideError,
    Conflict,
    HostError,
    InvalidArgument,
    NotFound,
    NotModified,
    PermissionDenied,
    Unsupported,
)
from bastide.model.process import Bundle, Root
from bastide.runtime import Exit, Feature, MemoryWatching, Pausing, Phase, Runtime, Snapshotting

log = logging.getLogger("bastide.engine")

_FIRST_DELAY, _LONGEST_DELAY, _SETTLED = 0.1, 60.0, 10.0
"""Restart back-off in seconds, as Docker's: doubled at each restart, begun anew after ten seconds of life."""
UNKNOWN_EXIT = 255
"""Exit code of a container whose end nobody saw (the host went down)."""


class Lifecycle:
    """Everything that changes whether a container runs. Public methods take the container's lock."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        backends: Backends,
        networks: Networks,
        volumes: Volumes,
        tasks: Tasks,
    ) -> None:
        self._settings, self._ledger, self._backends = settings, ledger, backends
        self._networks, self._volumes, self._tasks = networks, volumes, tasks
        self.attachments = Attachments(backends)
        self.health = Health(ledger, backends, tasks)
        self._delays: dict[str, float] = {}
        self._kept: set[str] = set()
        """Containers whose end is part of a restart: not removed then, whatever was agreed."""

    # -- start ---------------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """Start it. Raises NotModified when it runs, and what the runtime says when it cannot."""
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            if present.state.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if present.state.running:
                raise NotModified(f"container {present.id} is already running")
            if present.state.status is Status.REMOVING:
                raise Conflict("container is marked for removal and cannot be started")
            self._tasks.cancel(f"restart {present.id}")
            self._ledger.change(present, manually_stopped=False, restart_count=0)
            await self._start(present)

    async def start_saved(self, container: Container, directory: Path) -> None:
        """Start it from a saved state of its memory; the caller holds its lock. Raises what the runtime says."""
        await self._start(container, directory)

    async def _start(self, container: Container, saved: Path | None = None) -> None:
        runtime = self._backends.runtime(container.runtime)
        try:
            async with AsyncExitStack() as undo:
                pid = await self._bring_up(container, runtime, undo, saved)
                undo.pop_all()
        except BastideError as error:
            self._failed(container, error)
            raise
        except Exception:
            self._failed(container, HostError("start", errno.EIO, container.name))
            raise
        self._volumes.taken(container)
        self._running(container, pid)

    async def _bring_up(self, container: Container, runtime: Runtime, undo: AsyncExitStack, saved: Path | None) -> int:
        """Everything between a record and a running process; `undo` takes it back."""
        snapshotter = self._backends.snapshotter(container.snapshotter)
        root = await snapshotter.mount(container.id)
        undo.push_async_callback(snapshotter.unmount, container.id)
        bundle = await self._bundle(container, runtime, root, undo)
        if saved is not None:
            return await _restore(runtime, bundle, saved)
        await runtime.create(bundle)
        undo.push_async_callback(runtime.delete, container.id)
        await self.attachments.connect(container.id, runtime)
        return await runtime.start(container.id)

    async def _bundle(self, container: Container, runtime: Runtime, root: Root, undo: AsyncExitStack) -> Bundle:
        paths = bundles.Paths(self._settings, container.id)
        paths.durable.mkdir(parents=True, exist_ok=True, mode=0o700)
        connected = await self._networks.connect_all(container, runtime.features)
        undo.push_async_callback(self._networks.disconnect_all, container.id)
        self._ledger.change(container, networks=connected.endpoints, ports=connected.ports)
        name = bundles.hostname(container)
        paths.write(paths.hosts, connected.hosts)
        paths.write(paths.resolv_conf, connected.resolv_conf)
        paths.write(paths.hostname, f"{name}\n")
        host = container.host_config
        return Bundle(
            id=container.id,
            name=container.name,
            directory=paths.run,
            root=root,
            process=bundles.main_process(container),
            hostname=name,
            domainname=container.config.domainname,
            host_config=host,
            networking=connected.networking,
            mounts=await mounts.for_bundle(container, self._volumes),
            hosts=paths.hosts,
            hostname_file=paths.hostname,
            resolv_conf=paths.resolv_conf,
            log_path=None if host.log_config.type == "none" else paths.log,
            journal=_journal(container),
            cgroup_path=bundles.cgroup_path(self._settings, container),
            annotations=host.annotations or {},
            namespaces=self._shared_namespaces(container),
            stdin_once=container.config.stdin_once,
            image=container.config.image,
            architecture=container.architecture,
        )

    def _shared_namespaces(self, container: Container) -> dict[str, str]:
        """Namespaces asked for as `host` or `container:ID`; those of a container are named by its process."""
        host = container.host_config
        asked = {
            "ipc": host.ipc_mode,
            "pid": host.pid_mode,
            "uts": host.uts_mode,
            "cgroup": host.cgroupns_mode,
            "user": host.userns_mode,
        }
        shared = {}
        for kind, mode in asked.items():
            if mode == "host":
                shared[kind] = "host"
            elif mode.startswith("container:"):
                other = self._ledger.find(mode.partition(":")[2])
                if not other.state.running:
                    raise Conflict(f"cannot join the {kind} namespace of a non running container: {other.id}")
                if Feature.SHARED_NAMESPACES not in self._backends.runtime(other.runtime).features:
                    # What the host knows of it is its wall: that process is in the host's own namespaces.
                    raise Unsupported(
                        f"isolation {other.isolation} of {other.name} does not let {container.name} share its "
                        f"{kind} namespace"
                    )
                if kind == "ipc" and other.host_config.ipc_mode in ("private", "none"):
                    raise InvalidArgument(
                        f"can't join IPC of container {other.id}: non-shareable IPC "
                        "(hint: use IpcMode:shareable for the donor container)"
                    )
                shared[kind] = f"/proc/{other.state.pid}/ns/{kind}"
        return shared

    def _failed(self, container: Container, error: BastideError) -> None:
        """Record a start that failed, with Docker's exit codes for what the shell calls 126 and 127."""
        code = 127 if isinstance(error, NotFound) else 126 if isinstance(error, PermissionDenied) else 128
        self.attachments.fail(container.id, error)
        if self._ledger.get(container.id) is None:
            return
        failed = self._ledger.change_state(container, exit_code=code, error=error.message)
        self._ledger.announce(container.id, {Condition.NEXT_EXIT}, Waited(code, error.message))
        if failed.host_config.auto_remove:
            self._tasks.spawn(self._remove_failed(failed), f"remove {failed.id}")

    async def _remove_failed(self, container: Container) -> None:
        async with self._ledger.lock(container):
            await self.discard(container, volumes=True)

    def _running(self, container: Container, pid: int) -> None:
        health = self.health.initial(container)
        started = self._ledger.change_state(
            container,
            status=Status.RUNNING,
            pid=pid,
            started_at=now(),
            error="",
            exit_code=0,
            oom_killed=False,
            health=health,
        )
        self._ledger.event(started, "start")
        self._watch(started)

    def _watch(self, container: Container) -> None:
        """Follow a running process to its end, and its health meanwhile."""
        self._tasks.spawn(self._supervise(container), f"supervise {container.id}")
        runtime = self._backends.runtime(container.runtime)
        limited = container.host_config.memory or container.isolation == Isolation.VM
        if limited and isinstance(runtime, MemoryWatching):
            self._tasks.spawn(self._follow_memory(runtime, container), f"memory of {container.id}")
        self.health.begin(container)

    async def _follow_memory(self, runtime: MemoryWatching, container: Container) -> None:
        """Tell of memory that ran out as it happens: who was killed need not be the main process."""
        with suppress(NotFound):
            if not await runtime.memory_ran_out(container.id):
                return
        present = self._ledger.get(container.id)
        if present is not None and present.state.running and not present.state.oom_killed:
            self._ledger.event(self._ledger.change_state(present, oom_killed=True), "oom")

    # -- the end -------------------------------------------------------------------------------

    async def _supervise(self, container: Container) -> None:
        runtime = self._backends.runtime(container.runtime)
        ended = await runtime.wait(container.id)
        async with self._ledger.lock(container):
            present = self._ledger.get(container.id)
            if present is not None:
                await self._ended(present, ended)

    async def _ended(self, container: Container, ended: Exit) -> None:
        """The process is gone: tell everybody, take the host's side down, restart or remove if so agreed."""
        self.health.end(container.id)
        delay = self._restart_delay(container, ended.code)
        ran = _seconds_since(container.state.started_at)
        present = self._ledger.change_state(
            container,
            status=Status.EXITED if delay is None else Status.RESTARTING,
            pid=0,
            exit_code=ended.code,
            oom_killed=ended.oom_killed or container.state.oom_killed,
            finished_at=now(),
        )
        if ended.oom_killed and not container.state.oom_killed:
            self._ledger.event(present, "oom")
        self._ledger.event(present, "die", exitCode=str(ended.code), execDuration=str(int(ran)))
        answered = {Condition.NEXT_EXIT} | ({Condition.NOT_RUNNING} if delay is None else set())
        self._ledger.announce(present.id, answered, Waited(ended.code))
        await self._volumes.given_back(present)
        if delay is None and present.host_config.auto_remove and present.id not in self._kept:
            await self.discard(present, volumes=True)
            return
        await self.take_down(present)
        if delay is not None:
            self._tasks.spawn(self._restart_later(present, delay), f"restart {present.id}")

    async def take_down(self, container: Container) -> None:
        """Remove what a container holds on the host while it runs: network, process, mounts."""
        await self._networks.disconnect_all(container.id)
        await self._backends.runtime(container.runtime).delete(container.id)
        await self._backends.snapshotter(container.snapshotter).unmount(container.id)

    def _restart_delay(self, container: Container, code: int) -> float | None:
        """Seconds until the restart that its policy asks for; None when it stays down."""
        policy = container.host_config.restart_policy
        again = {
            "always": True,
            "unless-stopped": True,
            "on-failure": code != 0
            and (not policy.maximum_retry_count or container.restart_count < policy.maximum_retry_count),
        }.get(policy.name, False)
        if not again or container.manually_stopped:
            self._delays.pop(container.id, None)
            return None
        if _seconds_since(container.state.started_at) > _SETTLED:
            self._delays.pop(container.id, None)
        delay = self._delays.get(container.id, _FIRST_DELAY)
        self._delays[container.id] = min(delay * 2, _LONGEST_DELAY)
        return delay

    async def _restart_later(self, container: Container, delay: float) -> None:
        await asyncio.sleep(delay)
        async with self._ledger.lock(container):
            present = self._ledger.get(container.id)
            if present is None or present.state.status is not Status.RESTARTING:
                return
            counted = self._ledger.change(present, restart_count=present.restart_count + 1)
            try:
                await self._start(counted)
            except BastideError as error:
                log.warning("restart of %s: %s", container.name, error.message)
                self._ledger.change_state(counted, status=Status.EXITED)
                code = self._ledger.fresh(counted).state.exit_code
                self._ledger.announce(counted.id, {Condition.NOT_RUNNING}, Waited(code, error.message))

    # -- stop, kill, pause ---------------------------------------------------------------------

    async def stop(self, container: Container, timeout: float | None, signal: str | None) -> None:
        """Ask it to end, then kill it after `timeout` seconds (None: its own, else 10; -1: never).

        Raises NotModified when it does not run.
        """
        present = self._ledger.fresh(container)
        if present.state.status is Status.RESTARTING:
            await self._stop_restarting(present)
            return
        if not present.state.running:
            raise NotModified(f"container {present.id} is already stopped")
        number = bundles.signal_number(signal) if signal else bundles.stop_signal(present)
        if timeout is None:
            own = present.config.stop_timeout
            timeout = float(own if own is not None else 10)
        self._ledger.change(present, manually_stopped=True)
        gone = self._ledger.waiter(present.id, Condition.NOT_RUNNING)
        await self._signal(present, number)
        await self._resume_paused(present)
        if not await _within(gone, timeout):
            await self._signal(present, 9)
            await gone
        async with self._ledger.lock(present):
            # Everything that the end of the process entails is done when the lock is free again.
            if self._ledger.get(present.id) is not None:
                self._ledger.event(present, "stop")

    async def end(self, container: Container) -> None:
        """Kill it, for good. Raises NotModified when it does not run."""
        present = self._ledger.fresh(container)
        if not present.state.running and present.state.status is not Status.RESTARTING:
            raise NotModified(f"container {present.id} is already stopped")
        gone = self._ledger.waiter(present.id, Condition.NOT_RUNNING)
        await self.kill(present, "SIGKILL")
        await gone

    async def _stop_restarting(self, container: Container) -> None:
        self._tasks.cancel(f"restart {container.id}")
        async with self._ledger.lock(container):
            self._ledger.change(container, manually_stopped=True)
            stopped = self._ledger.change_state(container, status=Status.EXITED)
            self._ledger.announce(stopped.id, {Condition.NOT_RUNNING}, Waited(stopped.state.exit_code))

    async def _signal(self, container: Container, number: int) -> None:
        try:
            await self._backends.runtime(container.runtime).kill(container.id, number)
        except NotFound:
            return
        self._ledger.event(container, "kill", signal=str(number))

    async def _resume_paused(self, container: Container) -> None:
        """A frozen process cannot see its signal."""
        runtime = self._backends.runtime(container.runtime)
        if container.state.status is Status.PAUSED and isinstance(runtime, Pausing):
            await runtime.resume(container.id)
            self._ledger.change_state(container, status=Status.RUNNING)

    async def kill(self, container: Container, signal: str) -> None:
        """Send a signal. Raises Conflict when it does not run."""
        number = bundles.signal_number(signal or "SIGKILL")
        present = self._ledger.fresh(container)
        if present.state.status is Status.RESTARTING:
            await self._stop_restarting(present)
            return
        if not present.state.running:
            raise Conflict(f"cannot kill container: {present.name}: container {present.id} is not running")
        if number in (9, bundles.stop_signal(present)):
            present = self._ledger.change(present, manually_stopped=True)
        await self._signal(present, number)
        if number == 9:
            await self._resume_paused(present)

    async def restart(self, container: Container, timeout: float | None, signal: str | None) -> None:
        """Stop it if it runs, then start it."""
        present = self._ledger.fresh(container)
        if present.state.running or present.state.status is Status.RESTARTING:
            self._kept.add(present.id)
            try:
                await self.stop(present, timeout, signal)
            finally:
                self._kept.discard(present.id)
        await self.start(present)
        self._ledger.event(present, "restart")

    async def pause(self, container: Container) -> None:
        """Freeze it. Raises Conflict (not running, paused already), Unsupported."""
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            if present.state.status is Status.PAUSED:
                raise Conflict(f"container {present.id} is already paused")
            if not present.state.running:
                raise Conflict(f"container {present.id} is not running")
            await self._pausing(present).pause(present.id)
            self._ledger.event(self._ledger.change_state(present, status=Status.PAUSED), "pause")

    async def unpause(self, container: Container) -> None:
        """Let it go on. Raises Conflict when it is not paused."""
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            if present.state.status is not Status.PAUSED:
                raise Conflict(f"container {present.id} is not paused")
            await self._pausing(present).resume(present.id)
            self._ledger.event(self._ledger.change_state(present, status=Status.RUNNING), "unpause")

    def _pausing(self, container: Container) -> Pausing:
        runtime = self._backends.runtime(container.runtime)
        if Feature.PAUSE not in runtime.features or not isinstance(runtime, Pausing):
            raise Unsupported(f"isolation {container.isolation} cannot pause a container")
        return runtime

    # -- removal -------------------------------------------------------------------------------

    async def discard(self, container: Container, *, volumes: bool) -> None:
        """Remove a container that does not run, whole; the caller holds its lock.

        The record goes first, so that it is gone for everybody; what a crash then leaves on the host is
        found and removed at the next start.
        """
        await self._networks.disconnect_all(container.id)
        self._ledger.forget(container)
        self._ledger.event(container, "destroy")
        if volumes:
            await self._remove_volumes(container)
        self._tasks.spawn(self.clear(container), f"clear {container.id}")

    async def _remove_volumes(self, container: Container) -> None:
        for point in container.mounts:
            if point.type == "volume" and self._volumes.anonymous(point.name):
                try:
                    await self._volumes.remove(point.name, force=False)
                except (Conflict, NotFound):
                    continue

    async def clear(self, container: Container) -> None:
        """Remove a forgotten container's traces on the host."""
        await self._backends.runtime(container.runtime).delete(container.id)
        await self._backends.snapshotter(container.snapshotter).remove(container.id)
        await remove_files(self._settings, container.id)

    # -- after the daemon's start --------------------------------------------------------------

    async def take_up(self, container: Container) -> bool:
        """Compare a record with the host and mend it. Gives whether the container runs."""
        runtime = self._backends.runtime(container.runtime)
        found = await runtime.state(container.id)
        alive = found.phase in (Phase.RUNNING, Phase.PAUSED)
        if alive:
            status = Status.PAUSED if found.phase is Phase.PAUSED else Status.RUNNING
            if status is Status.PAUSED and container.state.status is Status.RUNNING:
                # Held for a copy of its files by a daemon that was killed meanwhile; nobody asked for it.
                try:
                    await self._pausing(container).resume(container.id)
                    status = Status.RUNNING
                except BastideError as error:
                    log.error("container %s stays paused: %s", container.name, error.message)
            started = container.state.started_at if container.state.running else now()
            self._ledger.change_state(container, status=status, pid=found.pid, started_at=started)
        return alive

    async def resume(self, container: Container) -> None:
        """Go on with a container that `take_up` found: follow it, or end what ended unseen."""
        present = self._ledger.fresh(container)
        runtime = self._backends.runtime(present.runtime)
        found = await runtime.state(present.id)
        if found.phase in (Phase.RUNNING, Phase.PAUSED):
            self._watch(present)
            return
        async with self._ledger.lock(present):
            if present.state.running:
                code = found.exit_code if found.exit_code is not None else UNKNOWN_EXIT
                await self._ended(present, Exit(code=code, oom_killed=found.oom_killed))
                return
            if found.phase is not Phase.ABSENT:
                await self.take_down(present)
            if present.host_config.auto_remove and present.state.error:
                await self.discard(present, volumes=True)
                return
        await self._restart_after_boot(present)

    async def _restart_after_boot(self, container: Container) -> None:
        """`always` starts with the daemon, `unless-stopped` unless it was stopped by hand."""
        policy = container.host_config.restart_policy.name
        waiting = container.state.status is Status.RESTARTING
        if waiting or (policy == "always" and container.manually_stopped):
            self._ledger.change_state(container, status=Status.RESTARTING)
            self._tasks.spawn(self._restart_later(container, _FIRST_DELAY), f"restart {container.id}")


def _journal(container: Container) -> str:
    """What the container is called in the host's journal; empty when its log does not go there."""
    chosen = container.host_config.log_config
    return (log_options.tag(container) or container.name) if chosen.type == "journald" else ""


async def _restore(runtime: Runtime, bundle: Bundle, saved: Path) -> int:
    if not isinstance(runtime, Snapshotting):
        raise Unsupported(f"isolation {runtime.isolation} cannot go on from a saved memory")
    await runtime.restore(bundle, saved)
    return (await runtime.state(bundle.id)).pid


def _seconds_since(moment: str) -> float:
    """Seconds since a time in Docker's notation; 0 for one that never was."""
    if moment.startswith("0001"):
        return 0.0
    then = datetime.fromisoformat(moment[:26] + "+00:00")
    return max(0.0, time.time() - then.timestamp())


async def _within(future: asyncio.Future[Waited], timeout: float) -> bool:
    """Whether the future is done within `timeout` seconds; a negative timeout waits for ever."""
    done, _ = await asyncio.wait([future], timeout=None if timeout < 0 else timeout)
    return bool(done)


async def remove_files(settings: Settings, container_id: str) -> None:
    """Remove a container's own folders."""
    paths = bundles.Paths(settings, container_id)
    for folder in (paths.durable, paths.run):
        await blocking(shutil.rmtree, folder, ignore_errors=True)

"""More processes in a running container (`docker exec`)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec

from bastide.engine import bundle as bundles
from bastide.engine.backends import Backends
from bastide.engine.identity import new_id
from bastide.engine.ledger import Ledger, command_text, not_running
from bastide.engine.tasks import Tasks
from bastide.host.capabilities import NAMES as ALL_CAPABILITIES
from bastide.model.container import Container, Status
from bastide.model.errors import BastideError, Conflict, InvalidArgument, NotFound
from bastide.model.process import Process, TerminalSize
from bastide.model.wire import Wire
from bastide.runtime import Stdio, Stream

_KEPT = 256
"""Ended execs stay known for their exit code until this many newer ones came."""


class ExecConfig(Wire, frozen=True, kw_only=True):
    """What to run: the Docker Engine API 1.47, `ContainerExec`."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class Exec(msgspec.Struct, kw_only=True):
    """One exec. `exit_code` is None until it ended; `pid` is 0 before and after."""

    id: str
    container: str
    config: ExecConfig
    process: Process
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


class _Followed(Stdio):
    """A process's streams; the exec's exit code is known when its output has ended."""

    def __init__(self, real: Stdio, ended: asyncio.Task[None]) -> None:
        self._real, self._ended = real, ended

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        async for piece in self._real.output():
            yield piece
        await asyncio.shield(self._ended)

    async def write(self, data: bytes) -> None:
        await self._real.write(data)

    async def close_stdin(self) -> None:
        await self._real.close_stdin()

    async def close(self) -> None:
        await self._real.close()


class Execs:
    """The execs of all containers; they end with the daemon's memory of them, not with the daemon."""

    def __init__(self, ledger: Ledger, backends: Backends, tasks: Tasks) -> None:
        self._ledger, self._backends, self._tasks = ledger, backends, tasks
        self._execs: dict[str, Exec] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    def create(self, reference: str, config: ExecConfig) -> str:
        """Prepare an exec; gives its id. Raises NotFound, Conflict (not running, paused), InvalidArgument."""
        container = self._running(reference)
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        made = Exec(id=new_id(), container=container.id, config=config, process=self._process(container, config))
        self._execs[made.id] = made
        self._ledger.event(container, f"exec_create: {command_text(config.cmd)}", execID=made.id)
        return made.id

    def _running(self, reference: str) -> Container:
        container = self._ledger.find(reference)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before exec")
        if not container.state.running:
            raise not_running(container)
        return container

    def _process(self, container: Container, config: ExecConfig) -> Process:
        main = bundles.main_process(container)
        own = config.env or []
        names = {entry.split("=", 1)[0] for entry in own}
        env = [entry for entry in main.env if entry.split("=", 1)[0] not in names]
        if config.tty and "TERM" not in names and not container.config.tty:
            env.append("TERM=xterm")
        size = config.console_size or []
        return Process(
            args=tuple(config.cmd or ()),
            env=(*env, *(entry for entry in own if "=" in entry)),
            cwd=config.working_dir or main.cwd,
            user=config.user or main.user,
            groups=main.groups if not config.user else (),
            terminal=config.tty,
            stdin=config.attach_stdin,
            size=TerminalSize(rows=size[0], columns=size[1]) if len(size) == 2 else None,
            capabilities=ALL_CAPABILITIES if config.privileged else main.capabilities,
            no_new_privileges=main.no_new_privileges,
            rlimits=main.rlimits,
            privileged=config.privileged or main.privileged,
        )

    async def start(
        self, exec_id: str, *, detach: bool = False, tty: bool | None = None, size: TerminalSize | None = None
    ) -> Stdio | None:
        """Run it. Gives its streams, or None when detached. Raises NotFound, Conflict, and the runtime's errors."""
        made = self.get(exec_id)
        if made.running or made.exit_code is not None:
            raise Conflict(f"Error: Exec command {exec_id} is already running")
        container = self._running(made.container)
        process = made.process if size is None else msgspec.structs.replace(made.process, size=size)
        if detach:
            process = msgspec.structs.replace(process, stdin=False)
        made.running = True
        runtime = self._backends.runtime(container.runtime)
        try:
            stdio = await runtime.exec(container.id, exec_id, process)
        except BastideError as error:
            code = 127 if isinstance(error, NotFound) else 126
            self._finish(made, code)
            raise
        self._ledger.event(container, f"exec_start: {command_text(process.args)}", execID=exec_id)
        ended = self._tasks.spawn(self._follow(made, container), f"exec {exec_id}")
        if not detach:
            return _Followed(stdio, ended)
        self._tasks.spawn(_drain(stdio), f"drain {exec_id}")
        return None

    async def _follow(self, made: Exec, container: Container) -> None:
        try:
            code = (await self._backends.runtime(container.runtime).wait(container.id, made.id)).code
        except BastideError:
            code = 137
        self._finish(made, code)
        if present := self._ledger.get(container.id):
            self._ledger.event(present, "exec_die", execID=made.id, exitCode=str(code))

    def _finish(self, made: Exec, code: int) -> None:
        made.running, made.exit_code, made.pid = False, code, 0
        self._ended[made.id] = None
        while len(self._ended) > _KEPT:
            self._execs.pop(self._ended.popitem(last=False)[0], None)

    def detached(self, exec_id: str) -> None:
        """A client let go of its streams by the keys for it."""
        made = self.get(exec_id)
        if present := self._ledger.get(made.container):
            self._ledger.event(present, "exec_detach", execID=made.id)

    def get(self, exec_id: str) -> Exec:
        """The exec of that id. Raises NotFound."""
        found = self._execs.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def of(self, container_id: str) -> list[str]:
        """Ids of the execs that run in a container."""
        return [made.id for made in self._execs.values() if made.container == container_id and made.running]

    async def resize(self, exec_id: str, size: TerminalSize) -> None:
        """Tell its terminal the new size. Raises NotFound, Conflict."""
        made = self.get(exec_id)
        if not made.running:
            raise Conflict(f"exec process {exec_id} is not running")
        container = self._ledger.find(made.container)
        await self._backends.runtime(container.runtime).resize(container.id, size, exec_id)


async def _drain(stdio: Stdio) -> None:
    """Read a detached exec's output away, so that it never blocks."""
    try:
        async for _ in stdio.output():
            pass
    finally:
        await stdio.close()

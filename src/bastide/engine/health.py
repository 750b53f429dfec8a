"""Health checks: run in the container at their interval, kept with the container's state."""

from __future__ import annotations

import asyncio

import msgspec

from bastide.engine import bundle as bundles
from bastide.engine.backends import Backends
from bastide.engine.clock import now
from bastide.engine.identity import new_id
from bastide.engine.ledger import Ledger, command_text
from bastide.engine.tasks import Tasks
from bastide.model import container as model
from bastide.model.container import Container, HealthConfig, HealthResult
from bastide.model.errors import BastideError
from bastide.model.process import Process
from bastide.runtime import Runtime

_SECOND = 1_000_000_000
_KEPT, _OUTPUT_LIMIT = 5, 4096
"""Docker keeps the last five results and 4096 bytes of each one's output."""


def check_of(container: Container) -> HealthConfig | None:
    """The container's check with Docker's defaults, None when it has none."""
    check = container.config.healthcheck
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    return msgspec.structs.replace(
        check,
        interval=check.interval or 30 * _SECOND,
        timeout=check.timeout or 30 * _SECOND,
        retries=check.retries or 3,
        start_interval=check.start_interval or 5 * _SECOND,
    )


def _command(check: HealthConfig, container: Container) -> tuple[str, ...]:
    kind, *words = check.test or []
    if kind == "CMD-SHELL":
        return (*(container.config.shell or ["/bin/sh", "-c"]), *words)
    return tuple(words) if kind == "CMD" else (kind, *words)


class Health:
    """One task for each running container that has a check."""

    def __init__(self, ledger: Ledger, backends: Backends, tasks: Tasks) -> None:
        self._ledger, self._backends, self._tasks = ledger, backends, tasks

    def initial(self, container: Container) -> model.Health | None:
        """The health of a container that just started."""
        return model.Health(status="starting") if check_of(container) else None

    def begin(self, container: Container) -> None:
        """Check from now on."""
        if check := check_of(container):
            self._tasks.spawn(self._follow(container, check), f"health {container.id}")

    def end(self, container_id: str) -> None:
        """Check no more."""
        self._tasks.cancel(f"health {container_id}")

    async def _follow(self, container: Container, check: HealthConfig) -> None:
        loop = asyncio.get_running_loop()
        grace_ends = loop.time() + check.start_period / _SECOND
        while True:
            present = self._ledger.get(container.id)
            if present is None or not present.state.running or present.state.health is None:
                return
            in_grace = loop.time() < grace_ends and present.state.health.status == "starting"
            await asyncio.sleep((check.start_interval if in_grace else check.interval) / _SECOND)
            present = self._ledger.get(container.id)
            if present is None or not present.state.running:
                return
            if present.state.status is not model.Status.PAUSED:
                in_grace = loop.time() < grace_ends
                self._record(present, check, await self._check(present, check), in_grace=in_grace)

    async def _check(self, container: Container, check: HealthConfig) -> HealthResult:
        runtime = self._backends.runtime(container.runtime)
        start, exec_id, output = now(), new_id(), bytearray()
        try:
            async with asyncio.timeout(check.timeout / _SECOND):
                code = await self._run(runtime, container, check, exec_id, output)
        except TimeoutError:
            await self._kill(runtime, container, exec_id)
            code = -1
            output[:] = f"Health check exceeded timeout ({check.timeout / _SECOND:g}s)".encode()
        except BastideError as error:
            code, output = -1, bytearray(error.message.encode())
        text = bytes(output[:_OUTPUT_LIMIT]).decode(errors="replace")
        return HealthResult(start=start, end=now(), exit_code=code, output=text)

    async def _run(
        self, runtime: Runtime, container: Container, check: HealthConfig, exec_id: str, output: bytearray
    ) -> int:
        main, command = bundles.main_process(container), _command(check, container)
        self._ledger.event(container, f"exec_create: {command_text(command)}", execID=exec_id)
        self._ledger.event(container, f"exec_start: {command_text(command)}", execID=exec_id)
        stdio = await runtime.exec(
            container.id,
            exec_id,
            Process(
                args=command,
                env=main.env,
                cwd=main.cwd,
                user=main.user,
                groups=main.groups,
                capabilities=main.capabilities,
                no_new_privileges=main.no_new_privileges,
            ),
        )
        try:
            async for _, piece in stdio.output():
                if len(output) < _OUTPUT_LIMIT:
                    output += piece
            code = (await runtime.wait(container.id, exec_id)).code
            self._ledger.event(container, "exec_die", execID=exec_id, exitCode=str(code))
            return code
        finally:
            await stdio.close()

    async def _kill(self, runtime: Runtime, container: Container, exec_id: str) -> None:
        try:
            await runtime.kill(container.id, 9, exec_id)
        except BastideError:
            return

    def _record(self, container: Container, check: HealthConfig, result: HealthResult, *, in_grace: bool) -> None:
        """Docker's rule: a success heals; failures count outside the start period, `retries` of them are too many."""
        present = self._ledger.get(container.id)
        if present is None or not present.state.running or present.state.health is None:
            return
        before = present.state.health
        if result.exit_code == 0:
            status, streak = "healthy", 0
        else:
            streak = before.failing_streak + (0 if in_grace and before.status == "starting" else 1)
            status = "unhealthy" if streak >= check.retries else before.status
        health = model.Health(status=status, failing_streak=streak, log=[*before.log, result][-_KEPT:])
        changed = self._ledger.change_state(present, health=health)
        if status != before.status:
            self._ledger.event(changed, f"health_status: {status}")

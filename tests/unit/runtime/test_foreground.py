"""Processes beside the main one, with a program of the test's in the runtime's place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.host.processes import Spawner
from bastide.model.errors import HostError, NotFound
from bastide.runtime import Stdio, Stream
from bastide.runtime.foreground import Foreground, Order, start


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


async def run(tmp_path: Path, spawner: Spawner, body: str, **changes: Any) -> Foreground:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    fields: dict[str, Any] = {
        "argv": (str(program),),
        "container": "c",
        "id": "e",
        "directory": tmp_path,
        "process": b"{}",
        "command": "x",
        "terminal": False,
        "stdin": False,
    }
    async with asyncio.timeout(5):
        return await start(Order(**{**fields, **changes}), spawner)


async def read(stdio: Stdio) -> list[tuple[Stream, bytes]]:
    return [piece async for piece in stdio.output()]


async def test_streams_and_code(tmp_path: Path, spawner: Spawner) -> None:
    made = await run(tmp_path, spawner, 'echo $$ > "$5"; cat; echo err >&2; exit 4', stdin=True)
    await made.stdio.write(b"hello")
    await made.stdio.close_stdin()
    assert await read(made.stdio) == [(Stream.STDOUT, b"hello"), (Stream.STDERR, b"err\n")]
    assert await made.wait() == 4
    made.close()
    await made.stdio.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program"]


async def test_program_that_is_not_found(tmp_path: Path, spawner: Spawner) -> None:
    with pytest.raises(NotFound, match=r'exec: "x": executable file not found in \$PATH'):
        await run(tmp_path, spawner, 'echo "executable file not found in \\$PATH" >&2; exit 255')
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program"]


async def test_runtime_that_dies(tmp_path: Path, spawner: Spawner) -> None:
    with pytest.raises(HostError, match="without a word"):
        await run(tmp_path, spawner, "kill -9 $$")
    with pytest.raises(HostError):
        await run(tmp_path, spawner, "", argv=("/nonexistent/program",))


async def test_output_ends_with_the_process(tmp_path: Path, spawner: Spawner) -> None:
    """Something that the process left behind holds its stdout: nobody waits for that."""
    made = await run(tmp_path, spawner, 'echo $$ > "$5"; sleep 3 & echo out')
    async with asyncio.timeout(2):
        assert await read(made.stdio) == [(Stream.STDOUT, b"out\n")]
    assert await made.wait() == 0


async def test_leaving_while_it_writes(tmp_path: Path, spawner: Spawner) -> None:
    made = await run(tmp_path, spawner, 'echo $$ > "$5"; head -c 1000000 /dev/zero')
    reading = asyncio.create_task(read(made.stdio))
    await asyncio.sleep(0)
    await made.stdio.close()
    async with asyncio.timeout(5):
        await reading
        assert await made.wait() == 0
    await made.stdio.close()


async def test_input_that_nobody_reads(tmp_path: Path, spawner: Spawner) -> None:
    made = await run(tmp_path, spawner, 'exec <&-; echo $$ > "$5"; sleep 0.1', stdin=True)
    with pytest.raises(NotFound):
        await made.stdio.write(b"x" * 1_000_000)
    assert await made.wait() == 0


async def test_signal_is_told(tmp_path: Path, spawner: Spawner) -> None:
    made = await run(tmp_path, spawner, 'echo $$ > "$5"; kill -15 $$')
    assert await made.wait() == 143
    with pytest.raises(NotFound):
        made.send(15)


async def test_a_pid_that_comes_after_its_file(tmp_path: Path, spawner: Spawner) -> None:
    """Pid 0 would mean the whole container to a runtime's `kill`."""
    made = await run(tmp_path, spawner, ': > "$5"; sleep 0.2; echo $$ > "$5"; exit 4')
    assert made.pid
    assert await made.wait() == 4
    made.close()
    await made.stdio.close()

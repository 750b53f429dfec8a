from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bastide.host.processes import Handle, Spawner, command_line, drain, parent, state_letter
from bastide.model.errors import HostError, NotFound, Unavailable


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.close()


async def test_run(spawner: Spawner) -> None:
    finished = await spawner.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (finished.code, finished.stdout, finished.stderr) == (3, b"out\n", b"err\n")
    assert (await spawner.run(["sh", "-c", "kill -9 $$"])).code == -9


async def test_run_floods_are_cut(spawner: Spawner) -> None:
    finished = await spawner.run(["head", "-c", "1000000", "/dev/zero"])
    assert len(finished.stdout) == 1_000_000


async def test_run_takes_too_long(spawner: Spawner) -> None:
    with pytest.raises(Unavailable, match="sleep did not finish within 0 s"):
        await spawner.run(["sleep", "100"], timeout=0.05)


async def test_missing_program(spawner: Spawner) -> None:
    with pytest.raises(HostError, match="/nonexistent"):
        await spawner.run(["/nonexistent"])


async def test_children_get_nothing_of_ours(spawner: Spawner) -> None:
    """ATTACKS 15: a leaked descriptor is a way out of the container."""
    extra = os.open("/", os.O_RDONLY)
    os.set_inheritable(extra, True)
    kept, other = os.pipe()
    read, write = os.pipe()
    child = await spawner.spawn(["ls", "/proc/self/fd"], stdout=write, keep=(kept,))
    os.close(write)
    listed = set(map(int, (await drain(read)).split()))
    await child.wait()
    for fd in (extra, kept, other):
        os.close(fd)
    # 0, 1, 2, what was asked for, and the descriptor that ls reads the directory with.
    assert len(listed) == 5
    assert {0, 1, 2, kept} < listed
    child.close()


async def test_environment_is_not_ours(spawner: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    lines = (await spawner.run(["env"])).stdout.decode().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["PATH"]


async def test_prepare_runs_once_in_the_spawning_thread() -> None:
    names: list[int] = []
    import threading

    spawner = Spawner(lambda: names.append(threading.get_ident()))
    assert await spawner.call(threading.get_ident) == names[0] != threading.get_ident()
    await spawner.call(lambda: None)
    assert len(names) == 1
    spawner.renew()
    await spawner.call(lambda: None)
    assert len(names) == 2
    spawner.close()


async def test_call_wraps_errors(spawner: Spawner) -> None:
    with pytest.raises(HostError, match="/nonexistent"):
        await spawner.call(lambda: os.listdir("/nonexistent"))


async def test_handles(spawner: Spawner) -> None:
    child = await spawner.spawn(["sleep", "100"])
    handle = Handle.open(child.pid)
    assert handle.alive
    assert parent(child.pid) == os.getpid()
    # The kernel closes our end of the start a moment before the new arguments can be read.
    await asyncio.sleep(0.1)
    assert command_line(child.pid) == ["sleep", "100"]
    waiters = [asyncio.create_task(handle.ended()) for _ in range(3)]
    await asyncio.sleep(0)
    handle.send(signal.SIGTERM)
    assert await child.wait() == -signal.SIGTERM
    await asyncio.gather(*waiters)
    assert not handle.alive
    with pytest.raises(NotFound):
        handle.send(signal.SIGTERM)
    handle.close()
    handle.close()
    assert not handle.alive
    with pytest.raises(NotFound):
        Handle.open(child.pid)
    child.close()


async def test_a_zombie_is_not_alive(spawner: Spawner) -> None:
    child = await spawner.spawn(["true"])
    await child.ended()
    child.close()
    again = await spawner.spawn(["true"])
    await asyncio.sleep(0.2)
    assert state_letter(again.pid) == "Z"
    assert not again.alive
    await again.wait()
    again.close()


async def test_closing_wakes_waiters(spawner: Spawner) -> None:
    child = await spawner.spawn(["sleep", "100"])
    handle = Handle.open(child.pid)
    waiting = asyncio.create_task(handle.ended())
    await asyncio.sleep(0)
    handle.close()
    async with asyncio.timeout(1):
        await waiting
    child.send(signal.SIGKILL)
    await child.wait()
    child.close()


@pytest.mark.parametrize("pid", [0, -1, 1 << 30])
def test_no_such_process(pid: int) -> None:
    with pytest.raises(NotFound):
        Handle.open(pid)
    assert parent(pid) == 0
    assert command_line(pid) == []


def test_names_with_parentheses(tmp_path: Path) -> None:
    assert parent(os.getpid()) == os.getppid()

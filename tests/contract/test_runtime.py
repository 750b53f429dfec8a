"""What every runtime keeps to, with real containers: run over all that work on this host.

`BASTIDE_RUNTIMES` names those that must work here (scripts/test installs them); the default is crun and runc.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.contract.conftest import GUEST
from tests.contract.place import Place, feed, line, read

from bastide import runtime as runtimes
from bastide.model.config import Settings
from bastide.model.container import HostConfig, Isolation
from bastide.model.errors import BastideError, NotFound, PermissionDenied
from bastide.model.process import Process, TerminalSize
from bastide.runtime import (
    Exit,
    Feature,
    Listing,
    Measuring,
    MemoryWatching,
    Pausing,
    Phase,
    Reopening,
    Updating,
)

REQUIRED = os.environ.get("BASTIDE_RUNTIMES", "crun runc").split()


def usable(name: str, settings: Settings) -> str:
    """Why a runtime does not work here; empty when it does."""
    return asyncio.run(runtimes.load(name)(settings).probe()).reason


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        settings = Settings(run_root=Path("/run/bastide-contract-probe"), guest_root=GUEST)
        wanted = getattr(metafunc.function, "features", frozenset())
        names = [
            name
            for name in runtimes.runtimes()
            if wanted <= runtimes.load(name).features and (name in REQUIRED or not usable(name, settings))
        ]
        metafunc.parametrize("place", names, indirect=True)


@pytest.fixture
async def place(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Place]:
    made = Place(request.param, settings)
    await made.open()
    yield made
    await made.close()


Test = Callable[[Place], Awaitable[None]]


def features(*wanted: Feature) -> Callable[[Test], Test]:
    """A test for the runtimes that announce these features."""

    def decorate(test: Test) -> Test:
        test.features = frozenset(wanted)  # type: ignore[attr-defined]
        return test

    return decorate


# -- the ten verbs -----------------------------------------------------------------------------------


async def test_output_and_exit_code(place: Place) -> None:
    ended, out, err = await place.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ended.code, out, err) == (7, "out\n", "err\n")


async def test_life(place: Place) -> None:
    runtime = place.runtime
    bundle = await place.bundle("sleep", "100")
    assert (await runtime.state(bundle.id)).phase is Phase.ABSENT
    await runtime.create(bundle)
    assert (await runtime.state(bundle.id)).phase is Phase.CREATED
    pid = await runtime.start(bundle.id)
    state = await runtime.state(bundle.id)
    assert (state.phase, state.pid) == (Phase.RUNNING, pid)
    assert Path(f"/proc/{pid}").exists()
    waiters = [asyncio.create_task(runtime.wait(bundle.id)) for _ in range(3)]
    await runtime.kill(bundle.id, signal.SIGKILL)
    assert {ended.code for ended in await asyncio.gather(*waiters)} == {137}
    state = await runtime.state(bundle.id)
    assert (state.phase, state.exit_code) == (Phase.STOPPED, 137)
    with pytest.raises(NotFound):
        await runtime.kill(bundle.id, signal.SIGTERM)
    await runtime.delete(bundle.id)
    await runtime.delete(bundle.id)
    assert (await runtime.state(bundle.id)).phase is Phase.ABSENT


async def test_the_same_container_starts_again(place: Place) -> None:
    bundle = await place.bundle("sh", "-c", "cat /data/n; echo again >> /data/n")
    for expected in ("", "again\n", "again\nagain\n"):
        await place.runtime.create(bundle)
        stdio = await place.runtime.attach(bundle.id)
        await place.runtime.start(bundle.id)
        assert (await read(stdio))[0] == expected
        await place.runtime.wait(bundle.id)
        await place.runtime.delete(bundle.id)


async def test_nothing_is_left(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    pid = (await place.runtime.state(container)).pid
    await place.runtime.delete(container)
    assert not Path(f"/proc/{pid}").exists()
    assert list(Path("/sys/fs/cgroup").rglob(container)) == []
    assert not (place.settings.run_root / "containers" / container).exists()
    assert not [
        path for path in place.settings.run_root.rglob("*") if container in path.name and path.name != container
    ]
    await place.snapshotter.unmount(container)
    assert container not in Path("/proc/mounts").read_text()


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        ("missing", NotFound, 'exec: "missing": executable file not found in $PATH: unknown'),
        ("/bin/missing", NotFound, 'exec: "/bin/missing": stat /bin/missing: no such file or directory: unknown'),
        ("/bin/plain", PermissionDenied, 'exec: "/bin/plain": permission denied: unknown'),
        ("/etc", PermissionDenied, 'exec: "/etc": '),
    ],
)
async def test_command_that_cannot_run(place: Place, command: str, error: type[BastideError], text: str) -> None:
    bundle = await place.bundle(command)
    with pytest.raises(error) as caught:
        await place.runtime.create(bundle)
    assert text in caught.value.message
    assert "\n" not in str(caught.value)
    assert (await place.runtime.state(bundle.id)).phase is Phase.ABSENT
    assert list(Path("/sys/fs/cgroup").rglob(bundle.id)) == []
    container, _ = await place.start("sleep", "100")
    with pytest.raises(error) as caught:
        await place.exec(container, command)
    assert text in caught.value.message
    assert (await place.exec(container, "true"))[0].code == 0


async def test_stdin(place: Place) -> None:
    container, stdio = await place.start("cat", stdin=True, stdin_once=True)
    feeding = asyncio.create_task(feed(stdio, b"one\n" + b"x" * 100_000))
    out, _ = await read(stdio)
    await feeding
    assert out == "one\n" + "x" * 100_000
    assert (await place.runtime.wait(container)).code == 0


async def test_no_stdin_is_empty(place: Place) -> None:
    assert (await place.run("cat"))[1] == ""


async def test_attach_many_and_late(place: Place) -> None:
    container, first = await place.start("sh", "-c", "read line; echo $line", stdin=True)
    second = await place.runtime.attach(container)
    await first.write(b"hello\n")
    assert [(await read(stdio))[0] for stdio in (first, second)] == ["hello\n", "hello\n"]
    await place.runtime.wait(container)
    with pytest.raises(NotFound):
        await place.runtime.attach(container)


async def test_leaving_does_not_end_it(place: Place) -> None:
    container, stdio = await place.start("sh", "-c", "read a; echo got $a; read b; echo got $b", stdin=True)
    await stdio.write(b"1\n")
    async for _ in stdio.output():
        break
    await stdio.close()
    again = await place.runtime.attach(container)
    await again.write(b"2\n")
    assert (await read(again))[0] == "got 2\n"


async def test_log_is_complete_when_wait_returns(place: Place) -> None:
    bundle = await place.bundle("sh", "-c", "seq 1 20000; printf partial; echo err >&2")
    await place.runtime.create(bundle)
    await place.runtime.start(bundle.id)
    await place.runtime.wait(bundle.id)
    assert bundle.log_path is not None
    text = {"stdout": "", "stderr": ""}
    for entry in bundle.log_path.read_text().splitlines():
        _, stream, tag, content = entry.split(" ", 3)
        text[stream] += content + ("\n" if tag == "F" else "")
    assert text == {"stdout": "".join(f"{n}\n" for n in range(1, 20001)) + "partial", "stderr": "err\n"}


async def test_log_goes_on_in_a_new_file(place: Place) -> None:
    runtime = place.runtime
    if not isinstance(runtime, Reopening):
        return
    bundle = await place.bundle("sh", "-c", "echo one; read x; echo two", stdin=True)
    await runtime.create(bundle)
    stdio = await runtime.attach(bundle.id)
    await runtime.start(bundle.id)
    assert (await anext(stdio.output()))[1] == b"one\n"
    log = bundle.log_path
    assert log is not None
    log.rename(log.with_suffix(".1"))
    await runtime.reopen_log(bundle.id)
    await asyncio.sleep(0.2)
    await stdio.write(b"\n")
    await runtime.wait(bundle.id)
    assert log.with_suffix(".1").read_text().endswith("stdout F one\n")
    assert log.read_text().endswith("stdout F two\n")
    assert len(log.read_text().splitlines()) == 1


async def test_output_without_a_reader_is_not_held_back(place: Place) -> None:
    """Nobody attached: a flood of output is logged and the process ends."""
    bundle = await place.bundle("sh", "-c", "yes | head -c 3000000", log_path=None)
    await place.runtime.create(bundle)
    await place.runtime.start(bundle.id)
    async with asyncio.timeout(30):
        assert (await place.runtime.wait(bundle.id)).code == 0


async def test_terminal(place: Place) -> None:
    container, stdio = await place.start(
        "sh", "-c", "stty size; read x; stty size", terminal=True, stdin=True, size=TerminalSize(rows=33, columns=101)
    )
    output = stdio.output()
    assert await line(output) == b"33 101\r\n"
    await place.runtime.resize(container, TerminalSize(rows=40, columns=120))
    await asyncio.sleep(0.2)
    await stdio.write(b"\n")
    rest = b"".join([data async for _, data in output])
    assert rest.endswith(b"40 120\r\n")
    assert (await place.runtime.wait(container)).code == 0


async def test_signals(place: Place) -> None:
    container, stdio = await place.start(
        "sh", "-c", "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    )
    output = stdio.output()
    assert (await anext(output))[1] == b"ready\n"
    await place.runtime.kill(container, signal.SIGUSR1)
    assert b"".join([data async for _, data in output]) == b"caught\n"
    assert (await place.runtime.wait(container)).code == 5


async def test_exec(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    assert await place.exec(container, "sh", "-c", "echo out; echo err >&2; exit 4") == (Exit(code=4), "out\n", "err\n")
    assert await place.exec(container, "sh", "-c", "kill -9 $$") == (Exit(code=137), "", "")
    assert await place.exec(container, "cat", stdin=b"x" * 200_000) == (Exit(code=0), "x" * 200_000, "")
    assert (await place.exec(container, "sh", "-c", "echo $A; pwd", env=("PATH=/bin", "A=b"), cwd="/tmp"))[
        1
    ] == "b\n/tmp\n"
    assert (await place.exec(container, "id", user="web"))[
        1
    ] == "uid=1000(web) gid=1000(web) groups=1000(web),2000(extra)\n"


async def test_exec_in_a_terminal(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    process = Process(
        args=("sh", "-c", "stty size; read x; stty size; exit 3"),
        env=("PATH=/bin",),
        terminal=True,
        stdin=True,
        size=TerminalSize(rows=21, columns=81),
    )
    stdio = await place.runtime.exec(container, "e", process)
    output = stdio.output()
    assert await line(output) == b"21 81\r\n"
    await place.runtime.resize(container, TerminalSize(rows=22, columns=82), "e")
    await asyncio.sleep(0.2)
    await stdio.write(b"\n")
    assert b"".join([data async for _, data in output]).endswith(b"22 82\r\n")
    assert (await place.runtime.wait(container, "e")).code == 3


async def test_many_execs_at_once(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    results = await asyncio.gather(*(place.exec(container, "echo", str(number)) for number in range(20)))
    assert [out for _, out, _ in results] == [f"{number}\n" for number in range(20)]


async def test_killing_an_exec_leaves_the_rest(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    await place.runtime.exec(container, "e", Process(args=("sleep", "50"), env=("PATH=/bin",)))
    await place.runtime.kill(container, signal.SIGTERM, "e")
    assert (await place.runtime.wait(container, "e")).code == 143
    assert (await place.runtime.state(container)).phase is Phase.RUNNING
    with pytest.raises(NotFound):
        await place.runtime.kill(container, signal.SIGTERM, "e")


async def test_unread_exec_does_not_stop_when_its_reader_leaves(place: Place) -> None:
    """Closing the streams of an exec does not end it: what it writes is thrown away."""
    container, _ = await place.start("sleep", "100")
    process = Process(args=("sh", "-c", "yes | head -c 1000000; echo done > /data/e"), env=("PATH=/bin",))
    stdio = await place.runtime.exec(container, "e", process)
    await stdio.close()
    async with asyncio.timeout(20):
        assert (await place.runtime.wait(container, "e")).code == 0
    assert (await place.exec(container, "cat", "/data/e"))[1] == "done\n"


async def test_who_it_is(place: Place) -> None:
    assert (await place.run("hostname"))[1] == "testhost\n"
    assert (await place.run("id", user="web"))[1] == "uid=1000(web) gid=1000(web) groups=1000(web),2000(extra)\n"
    assert (await place.run("id", user="1234:more"))[1] == "uid=1234 gid=3000(more) groups=3000(more)\n"
    assert (await place.run("sh", "-c", "echo $HOME", user="web"))[1] == "/home/web\n"
    assert (await place.run("sh", "-c", "pwd; echo $A", cwd="/tmp", env=("PATH=/bin", "A=1")))[1] == "/tmp\n1\n"


async def test_whose_kernel_it_is(place: Place) -> None:
    """Containers share the host's; every other wall brings its own."""
    _, out, _ = await place.run("uname", "-rv")
    host = f"{os.uname().release} {os.uname().version}\n"
    assert (out == host) is (place.runtime.isolation is Isolation.CONTAINER)


async def test_after_a_restart_of_the_daemon(place: Place, settings: Settings) -> None:
    """Another process's runtime object takes up what runs."""
    container, stdio = await place.start("sh", "-c", "read x; echo $x; exit 6", stdin=True)
    pid = (await place.runtime.state(container)).pid
    after = Place(place.runtime.name, settings)
    state = await after.runtime.state(container)
    assert (state.phase, state.pid) == (Phase.RUNNING, pid)
    await stdio.close()
    assert (await after.exec(container, "echo", "hi"))[1] == "hi\n"
    waiting = asyncio.create_task(after.runtime.wait(container))
    again = await after.runtime.attach(container)
    await again.write(b"hello\n")
    assert (await read(again))[0] == "hello\n"
    assert (await waiting).code == 6
    third = Place(place.runtime.name, settings)
    state = await third.runtime.state(container)
    assert (state.phase, state.exit_code) == (Phase.STOPPED, 6)
    assert (await third.runtime.wait(container)).code == 6
    await third.runtime.delete(container)
    assert (await third.runtime.state(container)).phase is Phase.ABSENT


@pytest.mark.parametrize(("script", "code"), [("{}", 137), ("({}); exit 3", 3)])
async def test_memory_limit_is_told(place: Place, script: str, code: int) -> None:
    """Whoever of the container's processes it met; to the host a gVisor is one process, with which all end."""
    words = script.format("x=a; while :; do x=$x$x; done")
    ended, _, _ = await place.run("sh", "-c", words, host=HostConfig(memory=16 << 20, memory_swap=16 << 20))
    assert ended == Exit(code=137 if place.runtime.name == "runsc" else code, oom_killed=True)


async def test_memory_that_runs_out_is_told_as_it_happens(place: Place) -> None:
    assert isinstance(place.runtime, MemoryWatching)
    if place.runtime.name == "runsc":
        return  # it ends with the first process that it met
    limit = HostConfig(memory=32 << 20, memory_swap=32 << 20)
    container, _ = await place.start("sh", "-c", "sleep 1; x=a; (while :; do x=$x$x; done); sleep 100", host=limit)
    told = asyncio.create_task(place.runtime.memory_ran_out(container))
    assert await asyncio.wait_for(told, 60)
    assert (await place.runtime.state(container)).phase is Phase.RUNNING
    again = asyncio.create_task(place.runtime.memory_ran_out(container))
    assert await asyncio.wait_for(again, 10)
    calm, _ = await place.start("sleep", "100", host=limit)
    waiting = asyncio.create_task(place.runtime.memory_ran_out(calm))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await place.runtime.delete(calm)
    assert not await asyncio.wait_for(waiting, 10)


# -- features ----------------------------------------------------------------------------------------


@features(Feature.PAUSE)
async def test_pause(place: Place) -> None:
    runtime = place.runtime
    assert isinstance(runtime, Pausing)
    container, _ = await place.start("sleep", "100")
    await runtime.pause(container)
    assert (await place.runtime.state(container)).phase is Phase.PAUSED
    await runtime.resume(container)
    assert (await place.runtime.state(container)).phase is Phase.RUNNING
    assert (await place.exec(container, "true"))[0].code == 0
    await runtime.pause(container)
    await place.runtime.kill(container, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert (await place.runtime.wait(container)).code == 137


@features(Feature.UPDATE, Feature.STATS)
async def test_update_and_stats(place: Place) -> None:
    runtime = place.runtime
    assert isinstance(runtime, Updating)
    assert isinstance(runtime, Measuring)
    container, _ = await place.start("sleep", "100", host=HostConfig(memory=64 << 20, pids_limit=50))
    before = await runtime.stats(container)
    assert before.memory_limit == 64 << 20
    assert before.pids_limit == 50
    assert before.pids >= 1
    assert before.memory > 0
    await runtime.update(container, HostConfig(memory=96 << 20, pids_limit=60, nano_cpus=500_000_000))
    after = await runtime.stats(container)
    assert (after.memory_limit, after.pids_limit) == (96 << 20, 60)
    await place.exec(container, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    assert (await runtime.stats(container)).cpu_total > before.cpu_total


@features(Feature.TOP)
async def test_top(place: Place) -> None:
    runtime = place.runtime
    assert isinstance(runtime, Listing)
    container, stdio = await place.start("sh", "-c", "sleep 100 & sleep 0.3; echo ready; wait")
    await anext(stdio.output())
    for arguments in ([], ["-eo", "pid,args"]):
        titles, rows = await runtime.top(container, arguments)
        assert "PID" in titles
        assert all(len(row) == len(titles) for row in rows)
        assert any(row[-1].endswith("sleep 100") for row in rows)
        assert len(rows) == len(await runtime.processes(container)) == 2
    with pytest.raises(BastideError, match="PID"):
        await runtime.top(container, ["-eo", "args"])

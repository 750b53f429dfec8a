"""The agent's client against guests that are slow, silent, wrong or hostile."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import random
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bastide.hypervisor import inside
from bastide.hypervisor.agent import STALE_LIMIT, Agent, Channel
from bastide.hypervisor.frames import HEADER, PAYLOAD, VERSION, WINDOW_OUTPUT, Ask, Decoder, Frame, Tell, u32
from bastide.model.errors import BastideError, GuestError, NotFound, PermissionDenied, Unavailable


def told(kind: int, stream: int, data: bytes = b"", flags: int = 0) -> bytes:
    """A frame as a guest sends it."""
    return HEADER.pack(kind, flags, 0, stream, len(data)) + data


class Guest:
    """The other end of the channel, and the monitor that hands it out."""

    def __init__(self, folder: Path) -> None:
        self.vendor = folder / "agent.sock"
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._decoder = Decoder()
        self._frames: list[Frame] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        async def vend(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sock: socket.socket = writer.get_extra_info("socket")
            rights = array.array("i", [self._theirs.fileno()]).tobytes()
            os_socket = socket.socket(fileno=os.dup(sock.fileno()))
            os_socket.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            os_socket.close()
            writer.close()

        self._server = await asyncio.start_unix_server(vend, self.vendor)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        self._ours.close()
        self.let_go()

    def let_go(self) -> None:
        """Keep nothing of the end that was handed out."""
        self._theirs.close()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._ours, data)

    async def receive(self) -> Frame:
        """The next frame from the host."""
        while not self._frames:
            data = await asyncio.get_running_loop().sock_recv(self._ours, 1 << 16)
            assert data, "the host hung up"
            self._frames += self._decoder.feed(data.lstrip(b"\0"))
        return self._frames.pop(0)

    async def welcome(self, version: int = VERSION) -> None:
        """Answer the greeting."""
        hello = await self.receive()
        assert hello.type == Ask.HELLO
        await self.send(told(Tell.HELLO, 0, hello.data + u32(version) + u32(0)))


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    made = Guest(tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def agent(guest: Guest) -> AsyncIterator[Agent]:
    made = await Agent.connect(guest.vendor)
    await guest.welcome()
    assert await made.hello(5) == 0
    yield made
    made.close()


async def running(agent: Agent, guest: Guest) -> tuple[asyncio.Task[Channel], int]:
    """An exec that the guest has seen but not answered."""
    task = asyncio.create_task(agent.run(b"", 5))
    return task, (await guest.receive()).stream


async def test_answers_find_their_requests(agent: Agent, guest: Guest) -> None:
    first = asyncio.create_task(agent.ask(Ask.STATS))
    second = asyncio.create_task(agent.ask(Ask.STATS))
    one, two = await guest.receive(), await guest.receive()
    await guest.send(told(Tell.DONE, two.stream, b"2") + told(Tell.DONE, one.stream, b"a", 1))
    await guest.send(told(Tell.DONE, one.stream, b"b"))
    assert (await first, await second) == (b"ab", b"2")


async def test_streams_end_with_the_code(agent: Agent, guest: Guest) -> None:
    task, stream = await running(agent, guest)
    await guest.send(told(Tell.DONE, stream))
    channel = await agent_channel(task)
    await guest.send(told(Tell.STDOUT, stream, b"out") + told(Tell.STDERR, stream, b"err"))
    await guest.send(told(Tell.EXIT, stream, u32(300) + u32(1)))
    assert [piece async for piece in channel.output()] == [(1, b"out"), (2, b"err")]
    assert await channel.ended == (44, True)


async def agent_channel(task: asyncio.Task[Channel]) -> Channel:
    """The channel that an exec gave."""
    return await task


async def test_stdin_waits_for_room(agent: Agent, guest: Guest) -> None:
    task, stream = await running(agent, guest)
    await guest.send(told(Tell.DONE, stream))
    channel = await agent_channel(task)
    writing = asyncio.create_task(channel.write(b"x" * 100_000))
    got = 0
    while got < 65536:
        got += len((await guest.receive()).data)
    await asyncio.sleep(0.05)
    assert not writing.done()
    await guest.send(told(Tell.WINDOW, stream, u32(65536)))
    while got < 100_000:
        got += len((await guest.receive()).data)
    await writing


async def test_a_writer_learns_that_the_process_ended(agent: Agent, guest: Guest) -> None:
    task, stream = await running(agent, guest)
    await guest.send(told(Tell.DONE, stream))
    channel = await agent_channel(task)
    writing = asyncio.create_task(channel.write(b"x" * 1_000_000))
    await asyncio.sleep(0.05)
    await guest.send(told(Tell.EXIT, stream, u32(0) + u32(0)))
    with pytest.raises(NotFound):
        await writing


async def test_refusals_are_told_apart(agent: Agent, guest: Guest) -> None:
    for kind, error in ((2, NotFound), (5, PermissionDenied), (3, GuestError), (99, GuestError)):
        task, stream = await running(agent, guest)
        await guest.send(told(Tell.ERROR, stream, u32(kind) + b"no\x1b[31m\nway"))
        with pytest.raises(error) as caught:
            await task
        assert str(caught.value) == "no?[31m?way"


async def flood(agent: Agent, guest: Guest, stream: int) -> None:
    for _ in range(WINDOW_OUTPUT // PAYLOAD + 2):
        await guest.send(told(Tell.STDOUT, stream, b"x" * PAYLOAD))


async def oversized(agent: Agent, guest: Guest, stream: int) -> None:
    await guest.send(HEADER.pack(Tell.STDOUT, 0, 0, stream, PAYLOAD + 1))


async def endless(agent: Agent, guest: Guest, stream: int) -> None:
    for _ in range(40):
        await guest.send(told(Tell.DONE, stream, b"x" * PAYLOAD, 1))


async def cut_short(agent: Agent, guest: Guest, stream: int) -> None:
    await guest.send(told(Tell.EXIT, stream, b"\0"))


async def chatter(agent: Agent, guest: Guest, stream: int) -> None:
    for _ in range(20):
        await guest.send(told(Tell.DONE, 77) * 400)


async def emptiness(agent: Agent, guest: Guest, stream: int) -> None:
    for _ in range(20):
        await guest.send(told(Tell.STDOUT, stream) * 400)


@pytest.mark.parametrize("attack", [flood, oversized, endless, cut_short, chatter, emptiness])
async def test_a_guest_that_breaks_the_protocol_is_cut_off(
    agent: Agent, guest: Guest, attack: Callable[[Agent, Guest, int], Awaitable[None]]
) -> None:
    task, stream = await running(agent, guest)
    if attack is not endless:
        await guest.send(told(Tell.DONE, stream))
        channel = await agent_channel(task)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await attack(agent, guest, stream)
    async with asyncio.timeout(5):
        with pytest.raises(GuestError):
            await asyncio.shield(task if attack is endless else channel.ended)
    assert agent.broken
    with pytest.raises(GuestError):
        await agent.ask(Ask.STATS)


async def test_silence_ends_in_an_error(agent: Agent) -> None:
    with pytest.raises(GuestError, match="did not answer"):
        await agent.ask(Ask.STATS, timeout=0.05)


async def test_unasked_frames_are_ignored(agent: Agent, guest: Guest) -> None:
    for kind in (Tell.STDOUT, Tell.EXIT, Tell.DONE, Tell.ERROR, Tell.WINDOW, 200) * 100:
        await guest.send(told(kind, 77, b"\0" * 8))
    asking = asyncio.create_task(agent.ask(Ask.STATS))
    await guest.send(told(Tell.DONE, (await guest.receive()).stream, b"fine"))
    assert await asking == b"fine"


async def test_output_that_nobody_reads_is_dropped(agent: Agent, guest: Guest) -> None:
    task, stream = await running(agent, guest)
    await guest.send(told(Tell.DONE, stream))
    channel = await agent_channel(task)
    channel.detach()
    for _ in range(100):
        await guest.send(told(Tell.STDOUT, stream, b"x" * PAYLOAD))
        assert (await guest.receive()).type == Ask.WINDOW
    await guest.send(told(Tell.EXIT, stream, u32(0) + u32(0)))
    assert await channel.ended == (0, False)


async def test_the_end_of_the_vm_ends_every_wait(agent: Agent, guest: Guest) -> None:
    task, stream = await running(agent, guest)
    await guest.send(told(Tell.DONE, stream))
    channel = await agent_channel(task)
    asking = asyncio.create_task(agent.ask(Ask.STATS))
    await guest.receive()
    guest.hang_up()
    for waiting in (asking, channel.ended):
        with pytest.raises(Unavailable):
            await waiting
    assert [piece async for piece in channel.output()] == []


async def test_another_version_is_refused(guest: Guest) -> None:
    agent = await Agent.connect(guest.vendor)
    await guest.welcome(version=VERSION + 1)
    with pytest.raises(GuestError, match="scripts/guest"):
        await agent.hello(5)
    agent.close()


async def test_a_new_daemon_skips_what_was_for_the_old_one(guest: Guest) -> None:
    first = await Agent.connect(guest.vendor)
    await guest.welcome()
    await first.hello(5)
    await guest.send(told(Tell.STDOUT, 3, b"for the old one")[:-4])
    first.close()
    second = await Agent.connect(guest.vendor, again=True)
    await guest.send(b"one!" + told(Tell.STDOUT, 3, b"more of it"))
    await guest.welcome()
    assert await second.hello(5) == 0
    second.close()


async def test_a_guest_that_never_stops_talking_to_the_former_daemon(guest: Guest) -> None:
    agent = await Agent.connect(guest.vendor, again=True)
    guest.let_go()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(STALE_LIMIT // PAYLOAD + 32):
            await guest.send(told(Tell.STDOUT, 3, b"x" * PAYLOAD))
    with pytest.raises(GuestError, match="does not answer"):
        await agent.hello(5)
    assert agent.broken
    agent.close()


async def test_no_monitor_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has ended"):
        await Agent.connect(tmp_path / "agent.sock")


async def test_crumbs_cost_no_more_than_their_bytes(agent: Agent, guest: Guest) -> None:
    task, stream = await running(agent, guest)
    await guest.send(told(Tell.DONE, stream))
    channel = await agent_channel(task)
    tracemalloc.start()
    for _ in range(WINDOW_OUTPUT // 1024):
        await guest.send(told(Tell.STDOUT, stream, b"x") * 1024)
        await asyncio.sleep(0)
    await guest.send(told(Tell.EXIT, stream, u32(0) + u32(0)))
    await channel.ended
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4 * WINDOW_OUTPUT
    assert sum(len(data) for _, data in [piece async for piece in channel.output()]) == WINDOW_OUTPUT


async def test_half_an_answer_is_not_kept_for_ever(agent: Agent, guest: Guest) -> None:
    tracemalloc.start()
    for _ in range(20):
        asking = asyncio.create_task(agent.ask(Ask.STATS, timeout=0.1))
        stream = (await guest.receive()).stream
        for _ in range(10):
            await guest.send(told(Tell.DONE, stream, b"x" * PAYLOAD, 1))
        with pytest.raises(GuestError, match="did not answer"):
            await asking
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 << 20


@pytest.mark.parametrize("seed", range(40))
async def test_noise(tmp_path: Path, seed: int) -> None:
    """Frames of every kind, right and wrong, in pieces: every wait ends, nobody else notices, nothing is kept."""
    source = random.Random(seed)
    guest = Guest(tmp_path)
    await guest.open()
    agent = await Agent.connect(guest.vendor)
    await guest.welcome()
    await agent.hello(5)
    guest.let_go()
    waiting: list[asyncio.Task[object]] = [asyncio.create_task(agent.ask(Ask.STATS, timeout=1)) for _ in range(3)]
    waiting += [asyncio.create_task(collect(agent, *words)) for words in (("stat", "/a"), ("changes",), ("processes",))]
    streams = [(await guest.receive()).stream for _ in waiting]
    # A guest that is cut off meanwhile has said enough.
    with contextlib.suppress(OSError):
        for _ in range(source.randrange(1, 400)):
            data = source.randbytes(source.choice((0, 1, 4, 8, 100, PAYLOAD)))
            stream = source.choice((*streams, *streams, source.getrandbits(32)))
            whole = told(source.choice([*Tell, source.randrange(256)]), stream, data, source.choice((0, 0, 1, 255)))
            if source.random() < 0.02:
                whole = source.randbytes(40)
            at = source.randrange(len(whole) + 1)
            await guest.send(whole[:at])
            await guest.send(whole[at:])
    guest.hang_up()
    async with asyncio.timeout(10):
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert not isinstance(outcome, Exception) or isinstance(outcome, BastideError)
    agent.close()
    await guest.close()


async def collect(agent: Agent, *words: str) -> object:
    """One of the agent's functions, as `inside` asks for it."""
    match words:
        case ("stat", path):
            return await inside.stat_path(agent, path)
        case ("changes",):
            return await inside.changes(agent)
        case _:
            return await inside.pids(agent)

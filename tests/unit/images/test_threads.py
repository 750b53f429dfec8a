"""The channel between the event loop and threads: order, limits, and ends from either side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from bastide.images.threads import Channel, Closed, in_thread
from bastide.model.errors import HostError, InvalidArgument, ResourceExhausted


async def source(count: int, error: Exception | None = None) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%04d" % number
    if error is not None:
        raise error


async def test_all_in_order_through_a_narrow_channel() -> None:
    channel = Channel(limit=8)
    work = asyncio.create_task(in_thread("t", lambda c: b"".join(c), channel))
    await channel.fill(source(500), work)
    assert await work == b"".join(b"%04d" % number for number in range(500))


async def test_error_of_the_source_reaches_both_sides() -> None:
    channel = Channel()
    seen: list[BaseException] = []

    def read(chunks: Channel) -> None:
        try:
            for _ in chunks:
                pass
        except InvalidArgument as error:
            seen.append(error)
            raise

    work = asyncio.create_task(in_thread("t", read, channel))
    with pytest.raises(InvalidArgument, match="broken"):
        await channel.fill(source(3, InvalidArgument("broken")), work)
    assert work.done()
    assert len(seen) == 1


async def test_reader_that_gives_up_ends_the_writer() -> None:
    channel = Channel(limit=8)

    def read(chunks: Channel) -> None:
        next(iter(chunks))
        raise InvalidArgument("enough")

    work = asyncio.create_task(in_thread("t", read, channel))
    await asyncio.wait_for(channel.fill(source(100_000), work), 10)
    with pytest.raises(InvalidArgument, match="enough"):
        await work


async def test_cancelled_writer_leaves_no_thread() -> None:
    channel = Channel()
    ended = threading.Event()

    def read(chunks: Channel) -> None:
        try:
            for _ in chunks:
                pass
        finally:
            ended.set()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    async def both() -> None:
        work = asyncio.create_task(in_thread("t", read, channel))
        await channel.fill(endless(), work)

    task = asyncio.create_task(both())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.wait(5)


async def test_system_errors_are_ours() -> None:
    def fail(code: int) -> None:
        raise OSError(code, "x", "/path")

    with pytest.raises(HostError):
        await in_thread("t", fail, 13)
    with pytest.raises(ResourceExhausted):
        await in_thread("t", fail, 28)


def test_abandoned_channel_stops_a_writing_thread() -> None:
    channel = Channel(limit=1)
    channel.put(b"x")
    threading.Timer(0.05, channel.abandon).start()
    with pytest.raises(Closed):
        channel.put(b"y")

"""Long work in threads of its own, and the channel through which the event loop feeds it.

A stage of an unpacking waits for the stage before it, so stages never share the pool of short calls:
a full pool of waiting stages would never move again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from bastide.host.syscalls import wrap

P = ParamSpec("P")
T = TypeVar("T")

BACKLOG = 8 << 20
"""Bytes that may wait in a channel."""


class Closed(Exception):
    """The other end of the channel gave up."""


class Channel:
    """Chunks of bytes between threads, or from the event loop to a thread; at most `limit` bytes wait."""

    def __init__(self, limit: int = BACKLOG) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._ended = self._abandoned = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._wake: Callable[[], object] | None = None

    def __iter__(self) -> Iterator[bytes]:
        """The chunks, until `end`. Raises what `end` was given."""
        while True:
            with self._changed:
                while not self._chunks and not self._ended:
                    self._changed.wait()
                if not self._chunks:
                    if self._error is not None:
                        raise self._error
                    return
                chunk = self._chunks.popleft()
                full = self._waiting >= self._limit
                self._waiting -= len(chunk)
                if full and self._waiting < self._limit:
                    self._notify()
            yield chunk

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._wake is not None:
            self._wake()

    def put(self, chunk: bytes) -> None:
        """Hand a chunk over from a thread, waiting for room. Raises Closed when nobody reads any more."""
        with self._changed:
            while self._waiting >= self._limit and not self._abandoned:
                self._changed.wait()
            if self._abandoned:
                raise Closed
            self._chunks.append(chunk)
            self._waiting += len(chunk)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """No more chunks; with an error, the reader gets it after what waits."""
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def abandon(self) -> None:
        """The reader gives up: writers get Closed."""
        with self._changed:
            self._abandoned = True
            self._chunks.clear()
            self._notify()

    async def write(self, chunk: bytes) -> None:
        """Hand a chunk over from the event loop, waiting for room. Raises Closed when nobody reads any more."""
        with self._changed:
            room = None
            if self._waiting >= self._limit and not self._abandoned:
                loop = asyncio.get_running_loop()
                room = loop.create_future()
                self._wake = lambda: loop.call_soon_threadsafe(_settle, room)
        if room is not None:
            await room
        with self._changed:
            self._wake = None
            if self._abandoned:
                raise Closed
            self._chunks.append(chunk)
            self._waiting += len(chunk)
            self._changed.notify_all()

    async def fill(self, data: AsyncIterator[bytes], reader: asyncio.Task[Any]) -> None:
        """Hand over all of `data`, then the end; an error in `data` reaches the reader and is raised here.

        `reader` is the task that waits for the reading thread; it has ended when this raises.
        """
        try:
            async for chunk in data:
                await self.write(chunk)
        except Closed:
            return
        except BaseException as error:
            self.end(error if isinstance(error, Exception) else RuntimeError("cancelled"))
            with contextlib.suppress(BaseException):
                await asyncio.shield(reader)
            raise
        self.end()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def in_thread(name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a new thread. A channel among the arguments is abandoned when it returns or raises.

    It is waited for even when the caller is cancelled. OSError becomes HostError or ResourceExhausted.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function(*args, **kwargs)
        except OSError as failure:
            error = wrap(failure, name)
            error.__cause__ = failure
        except BaseException as failure:
            error = failure
        finally:
            for argument in args:
                if isinstance(argument, Channel):
                    argument.abandon()
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        for argument in args:
            if isinstance(argument, Channel):
                argument.end(Closed())
        with contextlib.suppress(Exception):
            await asyncio.shield(done)
        raise

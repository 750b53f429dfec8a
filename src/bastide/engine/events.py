"""What happens, told to whoever listens: Docker's events, kept for a while.

Names and attributes are the Docker Engine API 1.47's (`SystemEvents`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType

import msgspec

KEPT = 256
"""How many past events a new listener can ask for, as in Docker."""
BACKLOG = 8192
"""How many events a listener may lag behind before it is cut off."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `kind` is `container`, `image`, `network`, `volume`, `builder`, `daemon`; `time` in ns since 1970."""

    kind: str
    action: str
    id: str
    attributes: dict[str, str]
    scope: str
    time: int


class Subscription:
    """A listener: a context manager and an iterator of events from its making on.

    The iteration ends when the listener lags more than `BACKLOG` events behind, or at `Events.close`.
    """

    def __init__(self, listeners: set[Subscription], past: Iterable[Event]) -> None:
        self._listeners = listeners
        self._queue: deque[Event] = deque(past)
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        listeners.add(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def deliver(self, event: Event) -> None:
        """Take an event in."""
        if len(self._queue) >= BACKLOG:
            self.end()
            return
        self._queue.append(event)
        self._wake()

    def end(self) -> None:
        """Listen no more; what was taken in can still be read."""
        self._ended = True
        self._listeners.discard(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._queue.popleft()


class Events:
    """The engine's one channel for events. Publishing is synchronous and cheap."""

    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[Subscription] = set()

    def publish(self, kind: str, action: str, subject: str, attributes: dict[str, str], scope: str = "local") -> Event:
        """Tell every listener what happened to `subject` (an id or name); gives the event."""
        event = Event(kind=kind, action=action, id=subject, attributes=attributes, scope=scope, time=time.time_ns())
        self._past.append(event)
        for listener in tuple(self._listeners):
            listener.deliver(event)
        return event

    def past(self, since: int, until: int = 0) -> list[Event]:
        """Kept events from `since` to `until` (ns since the epoch; 0: no end), oldest first."""
        return [event for event in self._past if since <= event.time and (not until or event.time <= until)]

    def subscribe(self, since: int | None = None) -> Subscription:
        """A new listener; with `since` (ns) it first gets the kept events from then on."""
        return Subscription(self._listeners, self.past(since) if since is not None else ())

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def close(self) -> None:
        """End every listener."""
        for listener in tuple(self._listeners):
            listener.end()

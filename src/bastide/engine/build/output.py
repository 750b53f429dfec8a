"""What a build says: Docker's messages, in the order of the Dockerfile though stages run at once.

The first unfinished stage speaks at once; what later ones say is kept until it is their turn. One that
says more than `KEPT` bytes meanwhile speaks at once as well: memory is not for keeping output.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

KEPT = 1 << 20
WAITING = 1 << 20
"""Bytes of messages that may wait for the client before whoever speaks has to wait as well."""
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"

Message = dict[str, Any]


class Output:
    """The one stream of messages of a build. Iterate over it to get them; `end` ends it."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._size = 0
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._ended = False
        self._voices: list[Voice] = []

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._read()

    async def _read(self) -> AsyncIterator[Message]:
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._size -= _weight(message)
                if self._size < WAITING:
                    self._room.set()
                yield message
            if self._ended:
                return
            self._more.clear()
            await self._more.wait()

    def send(self, message: Message) -> None:
        """Say something now."""
        self._messages.append(message)
        self._size += _weight(message)
        if self._size >= WAITING:
            self._room.clear()
        self._more.set()

    def say(self, text: str) -> None:
        """A piece of text."""
        self.send({"stream": text})

    async def room(self) -> None:
        """Wait until the client has read enough for more."""
        await self._room.wait()

    def end(self) -> None:
        """Nothing more is said."""
        self._ended = True
        self._more.set()
        self._room.set()

    # -- stages --------------------------------------------------------------------------------

    def voice(self) -> Voice:
        """One more speaker, after those that there are."""
        made = Voice(self)
        self._voices.append(made)
        if len(self._voices) == 1:
            made.speak()
        return made

    def done(self, voice: Voice) -> None:
        """A speaker has finished: the next one's turn."""
        while self._voices and self._voices[0].finished:
            self._voices.pop(0)
            if self._voices:
                self._voices[0].speak()


class Voice:
    """One speaker of an output."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._kept: list[Message] = []
        self._size = 0
        self._live = False
        self.finished = False

    def speak(self) -> None:
        """It is its turn: say what was kept, and all else at once."""
        self._live = True
        kept, self._kept = self._kept, []
        for message in kept:
            self._output.send(message)

    def send(self, message: Message) -> None:
        """Say something when it is its turn."""
        if self._live:
            self._output.send(message)
            return
        self._kept.append(message)
        self._size += _weight(message)
        if self._size > KEPT:
            self.speak()

    def say(self, text: str) -> None:
        """A piece of text."""
        self.send({"stream": text})

    async def output(self, data: str, *, error: bool) -> None:
        """What a step's process wrote; waits when the client does not read. Errors are red, as in Docker."""
        self.say(f"{_RED}{data}{_PLAIN}" if error else data)
        if self._live:
            await self._output.room()

    def finish(self) -> None:
        """Say nothing more."""
        if not self.finished:
            self.finished = True
            self._output.done(self)


def _weight(message: Message) -> int:
    return 64 + len(message.get("stream") or "")

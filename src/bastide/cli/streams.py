"""Carrying bytes between this process's streams and a container's, with its terminal and signals."""

from __future__ import annotations

import posix
from select import POLLHUP, POLLIN, POLLOUT, poll

from bastide.cli.grammar import CommandError
from bastide.cli.show.text import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

    from bastide.client import Connection
else:
    import _signal as signal  # the `signal` package costs 3 ms: it makes enums of these

_BLOCK = 1 << 16
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_DAEMON_ERROR = 3

# What Docker forwards: everything that a person or a supervisor sends and that can be caught.
PROXIED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCONT,
    signal.SIGTSTP,
)
RESIZED = (signal.SIGWINCH,)


def caught(*, terminal: bool, proxy: bool) -> Signals:
    """The signals that a conversation needs: the terminal's new size, those to hand on."""
    return Signals((*(RESIZED if terminal else ()), *(PROXIED if proxy else ())))


class Frames:
    """Takes the API's framed stream apart: 8 bytes of header (stream, 0, 0, 0, size), then the data."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._stream = _STDOUT
        self._error = b""

    def feed(self, data: bytes) -> None:
        """Write what came to standard output and standard error."""
        offset, end = 0, len(data)
        while offset < end:
            if not self._left:
                taken = 8 - len(self._head)
                self._head += data[offset : offset + taken]
                offset += taken
                if len(self._head) < 8:
                    return
                self._stream, self._left = self._head[0], int.from_bytes(self._head[4:], "big")
                self._head = b""
                continue
            part = data[offset : offset + self._left]
            offset += len(part)
            self._left -= len(part)
            self._deliver(part)

    def _deliver(self, part: bytes) -> None:
        if self._stream == _DAEMON_ERROR:
            self._error += part
            if not self._left:
                raise CommandError("error from daemon in stream: " + self._error.decode("utf-8", "replace"))
        else:
            write(_STDERR if self._stream == _STDERR else _STDOUT, part)


def plain(data: bytes) -> None:
    """Write what came from a terminal to standard output."""
    write(_STDOUT, data)


class Signals:
    """Turns signals into bytes on a pipe, so that one poll waits for them and for data; for a `with` block."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.descriptor, self._writer = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer)
        self._before: list[tuple[int, Any]] = [(n, signal.signal(n, _ignore)) for n in numbers]

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Put everything back."""
        for number, handler in self._before:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        posix.close(self.descriptor)
        posix.close(self._writer)

    def take(self) -> list[int]:
        """The signals that came since the last call."""
        try:
            return list(posix.read(self.descriptor, 64))
        except BlockingIOError:
            return []


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Being called is all: the wake-up descriptor tells the poll loop."""


class Pump:
    """Moves data both ways until the container's side ends or the user detaches.

    `deliver` takes what the container wrote; `keys` is the sequence that detaches, empty for none;
    `signalled` is called with each signal of `signals`.
    """

    def __init__(
        self,
        connection: Connection,
        deliver: Callable[[bytes], None],
        *,
        stdin: bool = False,
        keys: bytes = b"",
        signals: Signals | None = None,
        signalled: Callable[[int], None] | None = None,
    ) -> None:
        self._connection, self._deliver, self._keys = connection, deliver, keys
        self._signals, self._signalled = signals, signalled
        self._reading = stdin
        self._outgoing = b""
        self._held = b""
        self._ended = False
        self.detached = False

    def run(self) -> bool:
        """Carry everything. True when the user detached."""
        waiter, stream = poll(), self._connection.socket.fileno()
        if self._signals is not None:
            waiter.register(self._signals.descriptor, POLLIN)
        stdin_registered = False
        while not self.detached:
            wanted = self._reading and not self._outgoing
            if wanted != stdin_registered:
                stdin_registered = wanted
                _watch_stdin(waiter, wanted)
            waiter.register(stream, POLLIN | (POLLOUT if self._outgoing else 0))
            ready = dict(waiter.poll(0 if self._connection.pending else None))
            if self._signals is not None and self._signals.descriptor in ready:
                self._forward_signals()
            if ready.get(stream, 0) & POLLOUT:
                self._send()
            if _STDIN in ready:
                self._read_stdin()
            if (self._connection.pending or ready.get(stream, 0) & ~POLLOUT) and not self._receive():
                break
        return self.detached

    def _forward_signals(self) -> None:
        assert self._signals is not None
        for number in self._signals.take():
            if self._signalled is not None:
                self._signalled(number)

    def _receive(self) -> bool:
        try:
            data = self._connection.some(_BLOCK)
        except ConnectionResetError:
            return False
        if data:
            self._deliver(data)
        return bool(data)

    def _read_stdin(self) -> None:
        try:
            data = posix.read(_STDIN, _BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._reading, self._ended = False, True
        elif self._keys:
            data = self._without_keys(data)
        self._outgoing += data
        self._send()

    def _without_keys(self, data: bytes) -> bytes:
        """What to send of what was typed; notices the detach keys, and holds back what may become them."""
        data, self._held = self._held + data, b""
        if self._keys in data:
            self.detached = True
            return data[: data.index(self._keys)]
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:size]):
                self._held = data[-size:]
                return data[:-size]
        return data

    def _send(self) -> None:
        try:
            while self._outgoing and (sent := self._connection.send_now(self._outgoing)):
                self._outgoing = self._outgoing[sent:]
            if self._ended and not self._outgoing:
                self._ended = False
                self._connection.finish()
        except OSError:  # the container no longer reads
            self._reading, self._ended, self._outgoing = False, False, b""


def _watch_stdin(waiter: Any, wanted: bool) -> None:
    if wanted:
        waiter.register(_STDIN, POLLIN | POLLHUP)
    else:
        waiter.unregister(_STDIN)


def with_terminal(
    connection: Connection,
    *,
    stdin: bool,
    keys: str,
    signals: Signals,
    resize: Callable[[int, int], None],
    forward: Callable[[int], None] | None = None,
) -> bool:
    """Carry a container's terminal on this one, in raw mode, its size kept current. True when detached."""
    from bastide.cli import terminal
    from bastide.model.errors import BastideError

    def signalled(number: int) -> None:
        rows, columns = terminal.size()
        if number not in RESIZED:
            if forward is not None:
                forward(number)
        elif rows and columns:
            try:
                resize(rows, columns)
            except BastideError:
                return  # it has just ended, or has no terminal yet: nothing to resize

    sequence = terminal.keys(keys or terminal.configured_keys()) if stdin else b""
    signalled(RESIZED[0])
    pump = Pump(connection, plain, stdin=stdin, keys=sequence, signals=signals, signalled=signalled)
    if not (stdin and posix.isatty(_STDIN)):
        return pump.run()
    with terminal.Raw():
        return pump.run()

"""`bastide run`: create, attach, wait, start, carry the streams, end with the command's exit status.

The requests are sent so that as few answers as possible are waited for: attach and wait go out together
on connections of their own, and start only when the daemon has taken both.
"""

from __future__ import annotations

import posix

from bastide.cli.grammar import Command, CommandError, Options, UsageError
from bastide.cli.options import container, flags
from bastide.cli.show import text
from bastide.cli.verbs import create
from bastide.client.codec import decode
from bastide.model.errors import BastideError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.cli.streams import Signals
    from bastide.client import Client, Connection, Object

_ENGINE_ERROR, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127
_STREAMS = ("stdin", "stdout", "stderr")


def run(client: Client, options: Options) -> int:
    """Run a command in a new container; its exit status."""
    if options.on("detach"):
        if "attach" in options:
            raise UsageError("conflicting options: cannot specify both --attach and --detach")
        identity = create.make(client, options, container.body(options, ()))
        start(client, identity)
        text.out(identity)
        return 0
    attached = streams(options)
    tty = options.on("tty")
    if tty and "stdin" in attached and not posix.isatty(0):
        raise CommandError("the input device is not a TTY", 1)
    body = container.body(options, attached)
    if tty:
        from bastide.cli import terminal

        body["HostConfig"]["ConsoleSize"] = list(terminal.size())
    identity = create.make(client, options, body)
    return foreground(client, identity, attached, options, tty=tty, removed=options.on("rm"))


def streams(options: Options) -> tuple[str, ...]:
    """Which streams to attach to. Raises UsageError."""
    given = tuple(word.lower() for word in options.all("attach"))
    for word in given:
        if word not in _STREAMS:
            raise UsageError(
                f'invalid argument "{word}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR'
            )
    if given:
        return given
    return _STREAMS if options.on("interactive") else _STREAMS[1:]


def foreground(
    client: Client, identity: str, attached: tuple[str, ...], options: Options, *, tty: bool, removed: bool
) -> int:
    """Start a created container with this process's streams; its exit status."""
    keys = options.text("detach-keys")
    query: Object = {"stream": True, "detachKeys": keys, **dict.fromkeys(attached, True)}
    stream = client.containers.attaching(identity, query)
    waiting = client.containers.waiting(identity, "removed" if removed else "next-exit")
    from bastide.cli.streams import caught  # while the daemon is at it

    client.check(stream.answer())
    answer = client.check(waiting.answer())
    with caught(terminal=tty, proxy=options.on("sig-proxy", True)) as signals:
        start(client, identity)
        if converse(client, identity, stream, tty=tty, stdin="stdin" in attached, keys=keys, signals=signals):
            return 0
        return status(decode(answer.read()))


def start(client: Client, identity: str) -> None:
    """Start, with Docker's exit statuses for a command that cannot be run."""
    try:
        client.containers.start(identity)
    except BastideError as error:
        raise CommandError(f"Error response from daemon: {error.message}", code_of(error, _ENGINE_ERROR)) from error


def code_of(error: BastideError, otherwise: int) -> int:
    """Docker's exit status for a command that cannot be run, by what the daemon says about it."""
    message = error.message.lower()
    if "executable file not found" in message or "no such file or directory" in message:
        return _NOT_FOUND
    return _NOT_EXECUTABLE if "permission denied" in message or "is a directory" in message else otherwise


def status(answer: Object) -> int:
    """The exit status that a wait reports."""
    problem = (answer.get("Error") or {}).get("Message")
    if problem:
        raise CommandError(f"Error response from daemon: {problem}", _ENGINE_ERROR)
    return int(answer["StatusCode"])


def converse(
    client: Client, identity: str, stream: Connection, *, tty: bool, stdin: bool, keys: str, signals: Signals
) -> bool:
    """Carry a container's streams until they end; True when the user detached."""
    from bastide.cli import streams as carrying

    def forward(number: int) -> None:
        try:
            client.containers.kill(identity, str(number))
        except BastideError:
            return  # it has just ended: its exit status is on the way

    def resize(rows: int, columns: int) -> None:
        client.containers.resize(identity, rows, columns)

    if tty:
        return carrying.with_terminal(stream, stdin=stdin, keys=keys, signals=signals, resize=resize, forward=forward)
    return carrying.Pump(stream, carrying.Frames().feed, stdin=stdin, signals=signals, signalled=forward).run()


COMMAND = Command(
    run,
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags.RUN,
    1,
    carries=True,
    examples=(
        ("run --rm -it debian:12 bash", "a shell in a throw-away container"),
        ("run --rm --isolation vm debian:12 uname -r", "the same image behind its own kernel"),
        ("run -d --name web -p 8080:80 nginx", "a service in the background, on port 8080 of this host"),
        ("run --rm -v ./src:/src -w /src gcc:13 make", "a program on this host's files"),
    ),
)

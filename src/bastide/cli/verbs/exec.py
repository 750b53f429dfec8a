"""`bastide exec`: run a command in a running container."""

from __future__ import annotations

import posix

from bastide.cli.grammar import LIST, STRING, SWITCH, Command, CommandError, Options
from bastide.model.errors import BastideError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object


def execute(client: Client, options: Options) -> int:
    """Run a command in a container; its exit status."""
    name, *command = options.arguments
    tty, stdin, detach = options.on("tty"), options.on("interactive"), options.on("detach")
    if tty and stdin and not detach and not posix.isatty(0):
        raise CommandError("the input device is not a TTY")
    execs = client.execs
    asked = execs.creating(name, _config(options, command))
    from bastide.cli import streams  # while the daemon is at it

    identity = execs.created(asked)
    try:
        if detach:
            execs.detach(identity, tty)
            return 0
        stream = execs.start(identity, tty, _size() if tty else None)
    except BastideError as error:
        from bastide.cli.verbs import run

        raise CommandError(f"Error response from daemon: {error.message}", run.code_of(error, 1)) from error
    if tty:
        with streams.caught(terminal=True, proxy=False) as signals:
            detached = streams.with_terminal(
                stream,
                stdin=stdin,
                keys=options.text("detach-keys"),
                signals=signals,
                resize=lambda rows, columns: execs.resize(identity, rows, columns),
            )
        if detached:
            return 0
    else:
        streams.Pump(stream, streams.Frames().feed, stdin=stdin).run()
    stream.close()
    return int(execs.inspect(identity).get("ExitCode") or 0)


def _size() -> tuple[int, int] | None:
    from bastide.cli import terminal

    rows, columns = terminal.size()
    return (rows, columns) if rows and columns else None


def _config(options: Options, command: list[str]) -> Object:
    config: Object = {"Cmd": command}
    detach = options.on("detach")
    if not detach:
        config |= {"AttachStdout": True, "AttachStderr": True}
        if options.on("interactive"):
            config["AttachStdin"] = True
    if options.text("detach-keys"):
        config["DetachKeys"] = options.text("detach-keys")
    for flag, field in (("tty", "Tty"), ("privileged", "Privileged"), ("user", "User"), ("workdir", "WorkingDir")):
        if flag in options:
            config[field] = options.values[flag]
    if "env" in options or "env-file" in options:
        from bastide.cli.options import files

        config["Env"] = files.environment(options)
    return config


COMMAND = Command(
    execute,
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    (
        ("detach", "d", SWITCH, "Run the command in the background"),
        ("detach-keys", "", STRING, "Override the key sequence for detaching"),
        ("env", "e", LIST, "Set environment variables"),
        ("env-file", "", LIST, "Read in a file of environment variables"),
        ("interactive", "i", SWITCH, "Keep STDIN open even if not attached"),
        ("privileged", "", SWITCH, "Give extended privileges to the command"),
        ("tty", "t", SWITCH, "Allocate a pseudo-TTY"),
        ("user", "u", STRING, "Username or UID (format: <name|uid>[:<group|gid>])"),
        ("workdir", "w", STRING, "Working directory inside the container"),
    ),
    2,
    carries=True,
    examples=(
        ("exec -it web sh", "a shell in the running container `web`"),
        ("exec -u postgres db psql -l", "a command as another user"),
    ),
)

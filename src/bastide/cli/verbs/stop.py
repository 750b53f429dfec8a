"""`bastide stop`."""

from __future__ import annotations

from bastide.cli.grammar import INT, STRING, Command, Options
from bastide.cli.verbs.each import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client

FLAGS = (
    ("signal", "s", STRING, "Signal to send to the container"),
    ("timeout", "t", INT, "Seconds to wait before killing the container"),
    ("time", "", INT, "The same as --timeout"),
)


def seconds(options: Options) -> int | None:
    """How long to wait before a kill, None as the container is configured."""
    timeout = options.maybe("timeout")
    return options.maybe("time") if timeout is None else timeout


def stop(client: Client, options: Options) -> int:
    """Stop containers and print their names."""
    containers, signal = client.containers, options.text("signal")
    return for_each(options.arguments, lambda name: containers.stop(name, seconds(options), signal))


COMMAND = Command(
    stop,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    FLAGS,
    1,
    examples=(("stop -t 30 db", "give the database half a minute to finish"),),
)

"""`bastide kill`."""

from __future__ import annotations

from bastide.cli.grammar import STRING, Command, Options
from bastide.cli.verbs.each import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def kill(client: Client, options: Options) -> int:
    """Send a signal to containers and print their names."""
    containers, signal = client.containers, options.text("signal")
    return for_each(options.arguments, lambda name: containers.kill(name, signal))


COMMAND = Command(
    kill,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (("signal", "s", STRING, "Signal to send to the container (default KILL)"),),
    1,
    examples=(("kill -s HUP web", "let the service read its configuration again"),),
)

"""`bastide pause` and `bastide unpause`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options
from bastide.cli.verbs.each import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def pause(client: Client, options: Options) -> int:
    """Freeze containers and print their names."""
    return for_each(options.arguments, client.containers.pause)


def unpause(client: Client, options: Options) -> int:
    """Let containers go on and print their names."""
    return for_each(options.arguments, client.containers.unpause)


COMMAND = Command(pause, "CONTAINER [CONTAINER...]", (), 1)
UNPAUSE = Command(unpause, "CONTAINER [CONTAINER...]", (), 1)

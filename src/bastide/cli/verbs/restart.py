"""`bastide restart`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options
from bastide.cli.verbs.each import for_each
from bastide.cli.verbs.stop import FLAGS, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def restart(client: Client, options: Options) -> int:
    """Restart containers and print their names."""
    containers, signal = client.containers, options.text("signal")
    return for_each(options.arguments, lambda name: containers.restart(name, seconds(options), signal))


COMMAND = Command(restart, "[OPTIONS] CONTAINER [CONTAINER...]", FLAGS, 1)

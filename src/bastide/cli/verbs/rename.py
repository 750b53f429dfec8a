"""`bastide rename`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def rename(client: Client, options: Options) -> int:
    """Give a container another name."""
    old, new = options.arguments
    client.containers.rename(old, new)
    return 0


COMMAND = Command(rename, "CONTAINER NEW_NAME", (), 2, 2)

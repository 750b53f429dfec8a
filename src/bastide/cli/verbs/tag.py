"""`bastide tag`."""

from __future__ import annotations

from bastide.cli.grammar import Command, CommandError, Options
from bastide.cli.options import references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def tag(client: Client, options: Options) -> int:
    """Give an image one more name."""
    source, target = options.arguments
    try:
        name, label = references.split(target)
    except CommandError as error:
        raise CommandError(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    client.images.tag(source, name, label or "latest")
    return 0


COMMAND = Command(tag, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", (), 2, 2)

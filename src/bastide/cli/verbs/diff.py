"""`bastide diff`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client

_KINDS = "CAD"  # changed, added, deleted


def diff(client: Client, options: Options) -> int:
    """Show which paths a container changed."""
    for change in client.containers.changes(options.arguments[0]):
        text.out(f"{_KINDS[change['Kind']]} {change['Path']}")
    return 0


COMMAND = Command(diff, "CONTAINER", (), 1, 1)

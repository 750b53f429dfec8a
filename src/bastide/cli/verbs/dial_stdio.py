"""`bastide system dial-stdio`: the far end of `ssh://` endpoints."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options
from bastide.cli.show.text import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def dial(client: Client, _options: Options) -> int:
    """Carry bytes between standard streams and the daemon's socket."""
    from bastide.cli.streams import Pump

    Pump(client.connect(), lambda data: write(1, data), stdin=True).run()
    return 0


COMMAND = Command(dial, "", (), 0, 0)

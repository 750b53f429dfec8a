"""`bastide top`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client

_NARROWEST, _GAP = 20, 3


def top(client: Client, options: Options) -> int:
    """Show the processes of a container."""
    name, *arguments = options.arguments
    table = client.containers.top(name, " ".join(arguments))
    lines = [table["Titles"], *table["Processes"]]
    widths = [max(_NARROWEST, *(len(line[i]) + _GAP for line in lines)) for i in range(len(table["Titles"]) - 1)]
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)]
        text.out("".join([*cells, *line[len(widths) :]]))
    return 0


COMMAND = Command(
    top,
    "CONTAINER [ps OPTIONS]",
    (),
    1,
    carries=True,
    examples=(("top web -o pid,comm", "with ps's own options"),),
)

"""`bastide history`."""

from __future__ import annotations

from bastide.cli.grammar import ON, SWITCH, Command, Options
from bastide.cli.show import moments, text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.formats import FORMAT, NO_TRUNC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

_COMMAND_WIDTH, _COMMENT_WIDTH = 45, 45
_MISSING = "<missing>"

TITLES = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_SHOWN = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")


def history(client: Client, options: Options) -> int:
    """Show how an image was made, the last step first."""
    steps = client.images.history(options.arguments[0])
    whole, human = options.on("no-trunc"), options.on("human", True)
    form = options.text("format")
    rows = [_fields(step, whole=whole, human=human) for step in steps]
    if options.on("quiet") and form in ("", "table"):
        for row in rows:
            text.out(row["ID"]())
        return 0
    shown = _SHOWN if human else ("ID", "CreatedAt", *_SHOWN[2:])
    Listing("formatter.historyContext", TITLES, shown).print(form, rows)
    return 0


def _fields(step: Object, *, whole: bool, human: bool) -> dict[str, Callable[..., Any]]:
    identity, created, size = str(step["Id"]), step["Created"], step["Size"]
    command = str(step["CreatedBy"] or "").replace("\t", " ")
    comment = str(step.get("Comment") or "")
    return {
        "ID": lambda: identity if whole or identity == _MISSING else units.short_id(identity),
        "CreatedSince": lambda: moments.ago(created) if human else moments.rfc3339(created),
        "CreatedAt": lambda: moments.rfc3339(created),
        "CreatedBy": lambda: command if whole else units.ellipsis(command, _COMMAND_WIDTH),
        "Size": lambda: units.human_size(size, 3) if human else str(size),
        "Comment": lambda: comment if whole else units.ellipsis(comment, _COMMENT_WIDTH),
    }


COMMAND = Command(
    history,
    "[OPTIONS] IMAGE",
    (
        FORMAT,
        ("human", "H", ON, "Print sizes and dates in human readable format"),
        NO_TRUNC,
        ("quiet", "q", SWITCH, "Only show image IDs"),
    ),
    1,
    1,
)

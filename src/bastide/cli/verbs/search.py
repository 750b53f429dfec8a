"""`bastide search`."""

from __future__ import annotations

from bastide.cli.grammar import INT, Command, Options
from bastide.cli.show import units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.formats import FILTERS, FORMAT, NO_TRUNC, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

_DESCRIPTION_WIDTH = 45
_MARK = "[OK]"

TITLES = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
}


def search(client: Client, options: Options) -> int:
    """Search Docker Hub."""
    query = {
        "term": options.arguments[0],
        "limit": options.maybe("limit"),
        "filters": filters(options.all("filter")),
    }
    found = client.images.search(query)
    whole = options.on("no-trunc")
    rows = [_fields(item, whole=whole) for item in found]
    Listing("formatter.searchContext", TITLES, tuple(TITLES)).print(options.text("format"), rows)
    return 0


def _fields(item: Object, *, whole: bool) -> dict[str, Callable[..., Any]]:
    about = str(item.get("description") or "").replace("\n", " ").replace("\r", " ")
    return {
        "Name": lambda: item["name"],
        "Description": lambda: about if whole else units.ellipsis(about, _DESCRIPTION_WIDTH),
        "StarCount": lambda: str(item.get("star_count", 0)),
        "IsOfficial": lambda: _MARK if item.get("is_official") else "",
    }


COMMAND = Command(
    search,
    "[OPTIONS] TERM",
    (FILTERS, FORMAT, ("limit", "", INT, "Max number of search results"), NO_TRUNC),
    1,
    1,
)

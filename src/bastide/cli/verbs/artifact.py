"""`bastide artifact`: ls, inspect, rm. Artifacts are pulled and pushed as images are."""

from __future__ import annotations

from bastide.cli.grammar import STRING, SWITCH, Command, Options
from bastide.cli.show import text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.each import for_each
from bastide.cli.verbs.formats import FORMAT, NO_TRUNC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

TITLES = {
    "Name": "NAME",
    "Digest": "DIGEST",
    "Type": "TYPE",
    "Subject": "SUBJECT",
    "Size": "SIZE",
}
_SHOWN = ("Name", "Digest", "Type", "Subject", "Size")


def ls(client: Client, options: Options) -> int:
    """List artifacts, those that refer to images too."""
    form, whole = options.text("format"), options.on("no-trunc")
    rows = [
        _fields(item, name, whole=whole) for item in client.artifacts.list() for name in item["Names"] or ["<none>"]
    ]
    if options.on("quiet") and form in ("", "table"):
        for row in rows:
            text.out(row["Digest"]())
        return 0
    Listing("formatter.artifactContext", TITLES, _SHOWN).print(form, rows)
    return 0


def _fields(item: Object, name: str, *, whole: bool) -> dict[str, Callable[..., Any]]:
    def shown(digest: str) -> str:
        return digest if whole else units.short_id(digest)

    return {
        "Name": lambda: name,
        "Digest": lambda: shown(str(item["Digest"])),
        "Type": lambda: item["ArtifactType"],
        "Subject": lambda: shown(str(item["Subject"])) if item["Subject"] else "",
        "Size": lambda: units.human_size(item["Size"], 3),
    }


def inspect(client: Client, options: Options) -> int:
    """Show everything about artifacts."""
    from bastide.cli.show import table
    from bastide.client import codec

    found = [client.artifacts.inspect(name) for name in options.arguments]
    form = options.text("format")
    if form:
        for line in table.each("{{json .}}" if form == "json" else form, found):
            text.out_made_safe(line)
    else:
        text.out(codec.pretty(found))
    return 0


def remove(client: Client, options: Options) -> int:
    """Remove artifacts and print their names."""
    return for_each(options.arguments, client.artifacts.remove)


LIST = Command(
    ls,
    "[OPTIONS]",
    (FORMAT, NO_TRUNC, ("quiet", "q", SWITCH, "Only show digests")),
    0,
    0,
)
INSPECT = Command(
    inspect,
    "[OPTIONS] NAME|DIGEST [NAME|DIGEST...]",
    (("format", "f", STRING, "Format output using a custom template or json"),),
    1,
    None,
)
REMOVE = Command(remove, "NAME|DIGEST [NAME|DIGEST...]", (), 1, None)

"""`bastide snapshot`: create, ls, inspect, rm, restore; and `bastide clone`."""

from __future__ import annotations

from bastide.cli.grammar import STRING, SWITCH, Command, Options, UsageError
from bastide.cli.show import moments, text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.formats import FORMAT, NO_TRUNC, SHORT_FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

TITLES = {
    "Container": "CONTAINER",
    "Tag": "TAG",
    "ID": "SNAPSHOT ID",
    "Parent": "PARENT",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Memory": "MEMORY",
    "Isolation": "ISOLATION",
    "Size": "SIZE",
}
_SHOWN = ("Container", "Tag", "ID", "Parent", "CreatedSince", "Memory", "Isolation", "Size")
_NANO = 10**9


def create(client: Client, options: Options) -> int:
    """Save a container's state and print the snapshot's tag."""
    name, *tag = options.arguments
    if options.on("memory") and options.on("disk-only"):
        raise UsageError("conflicting options: cannot specify both --memory and --disk-only")
    memory = True if options.on("memory") else False if options.on("disk-only") else None
    text.out(client.snapshots.create(name, tag[0] if tag else "", memory)["Tag"])
    return 0


def ls(client: Client, options: Options) -> int:
    """List snapshots of all containers or of one."""
    found = client.snapshots.list(options.arguments[0] if options.arguments else "")
    form, whole = options.text("format"), options.on("no-trunc")
    rows = [_fields(item, whole=whole) for item in found]
    if options.on("quiet") and form in ("", "table"):
        for row in rows:
            text.out(row["ID"]())
        return 0
    Listing("formatter.snapshotContext", TITLES, _SHOWN).print(form, rows)
    return 0


def _fields(item: Object, *, whole: bool) -> dict[str, Callable[..., Any]]:
    created = moments.parse(str(item["Created"])) / _NANO
    return {
        "Container": lambda: item.get("ContainerName") or item["Container"],
        "Tag": lambda: item["Tag"],
        "ID": lambda: item["Id"] if whole else units.short_id(str(item["Id"])),
        "Parent": lambda: item.get("Parent") if whole else units.short_id(str(item.get("Parent") or "")),
        "CreatedSince": lambda: moments.ago(created),
        "CreatedAt": lambda: moments.local(created),
        "Memory": lambda: "yes" if item.get("Memory") else "no",
        "Isolation": lambda: item.get("Isolation", ""),
        "Size": lambda: units.human_size(item.get("Size") or 0, 3),
    }


def inspect(client: Client, options: Options) -> int:
    """Show everything about a snapshot."""
    from bastide.cli.show import table
    from bastide.client import codec

    found = client.snapshots.inspect(*options.arguments)
    form = options.text("format")
    if form:
        text.out_made_safe(table.each("{{json .}}" if form == "json" else form, [found])[0])
    else:
        text.out(codec.pretty([found]))
    return 0


def remove(client: Client, options: Options) -> int:
    """Remove a snapshot and print its tag."""
    name, tag = options.arguments
    client.snapshots.remove(name, tag)
    text.out(tag)
    return 0


def restore(client: Client, options: Options) -> int:
    """Put a container back to a snapshot, the latest if none is named, and print its tag."""
    name, *tag = options.arguments
    restored = client.snapshots.restore(name, tag[0] if tag else "", memory=not options.on("disk-only"))
    text.out(restored["Tag"])
    return 0


def clone(client: Client, options: Options) -> int:
    """Make a second container out of one, as it is now or was; print its id."""
    name, *new = options.arguments
    text.out(client.snapshots.clone(name, new[0] if new else "", options.text("tag"))["Id"])
    return 0


CREATE = Command(
    create,
    "[OPTIONS] CONTAINER [TAG]",
    (
        ("disk-only", "", SWITCH, "Save the disk alone, though it runs"),
        ("memory", "", SWITCH, "Save the memory, too, or fail"),
    ),
    1,
    2,
    details="With memory where the container runs and its wall can save it; `--isolation vm` can.",
    examples=(("snapshot create dev before-upgrade", "a point to come back to"),),
)
LIST = Command(
    ls, "[OPTIONS] [CONTAINER]", (FORMAT, NO_TRUNC, ("quiet", "q", SWITCH, "Only display snapshot IDs")), 0, 1
)
INSPECT = Command(inspect, "[OPTIONS] CONTAINER TAG", (SHORT_FORMAT,), 2, 2)
REMOVE = Command(remove, "CONTAINER TAG", (), 2, 2)
RESTORE = Command(
    restore,
    "[OPTIONS] CONTAINER [TAG]",
    (("disk-only", "", SWITCH, "Put the disk alone back, though memory was saved"),),
    1,
    2,
    examples=(("snapshot restore dev before-upgrade", "disk and memory as they were"),),
)
CLONE = Command(
    clone,
    "[OPTIONS] CONTAINER [NEW_NAME]",
    (("tag", "", STRING, "Begin from this snapshot instead of the present"),),
    1,
    2,
    examples=(("clone dev dev-2", "a second one, running where the first one is"),),
)

"""`bastide volume`: create, ls, rm."""

from __future__ import annotations

from bastide.cli.grammar import MAP, STRING, SWITCH, Command, Options
from bastide.cli.options.container import pairs
from bastide.cli.show import text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.each import for_each
from bastide.cli.verbs.formats import FILTERS, FORMAT, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

_UNKNOWN = "N/A"

TITLES = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Status": "STATUS",
}


def ls(client: Client, options: Options) -> int:
    """List volumes, in order of their names."""
    found, warnings = client.volumes.list(filters(options.all("filter")))
    form = options.text("format")
    rows = [fields(item) for item in sorted(found, key=lambda item: str(item["Name"]))]
    if options.on("quiet") and form in ("", "table"):
        for row in rows:
            text.out(row["Name"]())
    else:
        Listing("formatter.volumeContext", TITLES, ("Driver", "Name")).print(form, rows)
    for warning in warnings:
        text.err(f"WARNING: {text.one_line(warning)}")
    return 0


def fields(item: Object) -> dict[str, Callable[..., Any]]:
    """The fields of a row."""
    labels, usage = item.get("Labels") or {}, item.get("UsageData") or {}
    return {
        "Driver": lambda: item["Driver"],
        "Name": lambda: item["Name"],
        "Scope": lambda: item.get("Scope", ""),
        "Mountpoint": lambda: item.get("Mountpoint", ""),
        "Labels": lambda: ",".join([f"{key}={value}" for key, value in sorted(labels.items())]),
        "Label": lambda name: labels.get(name, ""),
        "Links": lambda: str(usage["RefCount"]) if usage else _UNKNOWN,
        "Size": lambda: units.human_size(usage["Size"]) if usage else _UNKNOWN,
        "Availability": lambda: _UNKNOWN,
        "Group": lambda: _UNKNOWN,
        "Status": lambda: _UNKNOWN,
    }


def create(client: Client, options: Options) -> int:
    """Create a volume and print its name."""
    body: Object = {
        "Name": options.arguments[0] if options.arguments else "",
        "Driver": options.text("driver", "local"),
        "DriverOpts": pairs(options.all("opt")),
        "Labels": pairs(options.all("label")),
    }
    text.out(client.volumes.create(body)["Name"])
    return 0


def remove(client: Client, options: Options) -> int:
    """Remove volumes and print their names."""
    return for_each(options.arguments, lambda name: client.volumes.remove(name, options.on("force")))


LIST = Command(ls, "[OPTIONS]", (FILTERS, FORMAT, ("quiet", "q", SWITCH, "Only display volume names")), 0, 0)
CREATE = Command(
    create,
    "[OPTIONS] [VOLUME]",
    (
        ("driver", "d", STRING, "Volume driver (default local)"),
        ("label", "", "list", "Set metadata for a volume"),
        ("opt", "o", MAP, "Set driver specific options"),
    ),
    0,
    1,
    examples=(("volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch", "in memory"),),
)
REMOVE = Command(
    remove,
    "[OPTIONS] VOLUME [VOLUME...]",
    (("force", "f", SWITCH, "Do not error if the volume does not exist"),),
    1,
    details="A volume that a container uses cannot be removed.",
)

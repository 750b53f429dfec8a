"""`bastide system df`."""

from __future__ import annotations

from bastide.cli.grammar import SWITCH, Command, CommandError, Options
from bastide.cli.show import moments, table, text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs import images, ps
from bastide.cli.verbs.formats import FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

TITLES = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


def df(client: Client, options: Options) -> int:
    """Show what takes space, and how much of it could be had back."""
    usage = client.system.disk_usage()
    form = options.text("format")
    if options.on("verbose"):
        if form:
            raise CommandError("--verbose and --format cannot be used together")
        _verbose(usage)
        return 0
    Listing("formatter.diskUsageContext", TITLES, tuple(TITLES)).print(form, _rows(usage))
    return 0


def _rows(usage: Object) -> list[dict[str, Callable[..., Any]]]:
    found = usage.get("Images") or []
    total = int(usage.get("LayersSize") or 0)
    used = sum(_own(item) for item in found if item.get("Containers", 0) > 0)
    containers = usage.get("Containers") or []
    stopped = [item for item in containers if item["State"] not in ("running", "paused", "restarting")]
    volumes = usage.get("Volumes") or []
    unused = [item for item in volumes if not (item.get("UsageData") or {}).get("RefCount")]
    cache = usage.get("BuildCache") or []
    idle = [item for item in cache if not item.get("InUse") and not item.get("Shared")]
    artifacts = usage.get("Artifacts") or []
    rows = [
        _row("Images", len(found), sum(item.get("Containers", 0) > 0 for item in found), total, total - used),
        _row("Containers", len(containers), len(containers) - len(stopped), _sum(containers), _sum(stopped)),
        _row("Local Volumes", len(volumes), len(volumes) - len(unused), _volume_sum(volumes), _volume_sum(unused)),
        _row(
            "Build Cache",
            len(cache),
            sum(bool(item.get("InUse")) for item in cache),
            sum(item.get("Size", 0) for item in cache if not item.get("Shared")),
            sum(item.get("Size", 0) for item in idle),
        ),
    ]
    if artifacts:
        rows.append(_row("Artifacts", len(artifacts), len(artifacts), _total(artifacts), 0))
    return rows


def _own(item: Object) -> int:
    """What only this image takes, as docker counts it; 0 where sizes are unknown."""
    size, shared = item.get("Size", 0), item.get("SharedSize", -1)
    return int(size - max(shared, 0)) if size > 0 else 0


def _total(items: list[Object]) -> int:
    return sum(item["Size"] for item in items)


def _sum(containers: list[Object]) -> int:
    return sum(item.get("SizeRw") or 0 for item in containers)


def _volume_sum(volumes: list[Object]) -> int:
    return sum(max((item.get("UsageData") or {}).get("Size", 0), 0) for item in volumes)


def _row(kind: str, count: int, active: int, size: int, free: int) -> dict[str, Callable[..., Any]]:
    share = f" ({free * 100 // size}%)" if size > 0 else ""
    if kind == "Images" and not size:
        share = ""
    if kind == "Build Cache":
        share = ""
    return {
        "Type": lambda: kind,
        "TotalCount": lambda: str(count),
        "Active": lambda: str(active),
        "Size": lambda: units.human_size(size),
        "Reclaimable": lambda: units.human_size(max(free, 0)) + share,
    }


def _verbose(usage: Object) -> None:
    text.out("Images space usage:\n")
    rows = []
    for item in usage.get("Images") or []:
        for name, tag, _ in images.spellings(item, digests=False):
            field = images.fields(item, name, tag, "", whole=False)
            order = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
            rows.append([str(field[key]()) for key in order])
    titles = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]
    table.columns(titles, rows)
    text.out("\nContainers space usage:\n")
    rows = []
    for item in usage.get("Containers") or []:
        field = ps.fields(item, whole=False)
        start, end = ("ID", "Image", "Command", "LocalVolumes"), ("RunningFor", "Status", "Names")
        own = units.human_size(item.get("SizeRw") or 0, 3)
        rows.append([*(str(field[key]()) for key in start), own, *(str(field[key]()) for key in end)])
    table.columns(["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"], rows)
    text.out("\nLocal Volumes space usage:\n")
    rows = []
    for item in usage.get("Volumes") or []:
        data = item.get("UsageData") or {}
        rows.append([item["Name"], str(data.get("RefCount", "N/A")), units.human_size(max(data.get("Size", 0), 0))])
    table.columns(["VOLUME NAME", "LINKS", "SIZE"], rows)
    _build_cache(usage.get("BuildCache") or [])
    if artifacts := usage.get("Artifacts") or []:
        text.out(f"\nArtifacts: {units.human_size(_total(artifacts))}\n")
        rows = [
            [item["Digest"][7:19], ", ".join(item["Names"]), units.human_size(item["Size"], 3)] for item in artifacts
        ]
        table.columns(["ARTIFACT ID", "NAMES", "SIZE"], rows)


def _build_cache(cache: list[Object]) -> None:
    size = sum(item.get("Size", 0) for item in cache if not item.get("Shared"))
    text.out(f"\nBuild cache usage: {units.human_size(size)}\n")
    rows = []
    for item in cache:
        last = item.get("LastUsedAt")
        rows.append(
            [
                item["ID"][:12] + ("*" if item.get("InUse") else ""),
                item.get("Type", ""),
                units.human_size(item.get("Size", 0), 3),
                moments.ago(moments.parse(item["CreatedAt"]) / 10**9),
                moments.ago(moments.parse(last) / 10**9) if last else "",
                str(item.get("UsageCount", 0)),
                str(bool(item.get("Shared"))).lower(),
            ]
        )
    table.columns(["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"], rows)


COMMAND = Command(
    df,
    "[OPTIONS]",
    (FORMAT, ("verbose", "v", SWITCH, "Show detailed information on space usage")),
    0,
    0,
)

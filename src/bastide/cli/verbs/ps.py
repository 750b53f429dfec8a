"""`bastide ps`."""

from __future__ import annotations

from bastide.cli.grammar import INT, SWITCH, Command, Options
from bastide.cli.show import moments, text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.formats import FILTERS, FORMAT, NO_TRUNC, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

_COMMAND_WIDTH, _MOUNT_WIDTH = 20, 15

TITLES = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Isolation": "ISOLATION",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
    "Size": "SIZE",
}
SHOWN = ("ID", "Image", "Command", "RunningFor", "Status", "Isolation", "Ports", "Names")


def ps(client: Client, options: Options) -> int:
    """List containers."""
    form = options.text("format")
    last = 1 if options.on("latest") else options.number("last", -1)
    quiet = options.on("quiet")
    sized = options.on("size") or (not quiet and (".Size" in form or "json ." in form))
    found = client.containers.list(options.on("all") or last > 0, last, sized, filters(options.all("filter")))
    whole = options.on("no-trunc")
    if quiet and form in ("", "table"):
        for item in found:
            text.out(item["Id"] if whole else units.short_id(item["Id"]))
        return 0
    shown = (*SHOWN, "Size") if options.on("size") else SHOWN
    Listing("formatter.ContainerContext", TITLES, shown).print(form, [fields(item, whole=whole) for item in found])
    return 0


def fields(item: Object, *, whole: bool) -> dict[str, Callable[..., Any]]:
    """The fields of a row, each made when it is asked for."""
    return {
        "ID": lambda: item["Id"] if whole else units.short_id(item["Id"]),
        "Image": lambda: _image(item, whole=whole),
        "Command": lambda: _command(item, whole=whole),
        "CreatedAt": lambda: moments.local(item["Created"]),
        "RunningFor": lambda: moments.ago(item["Created"]),
        "Status": lambda: item["Status"],
        "State": lambda: item["State"],
        "Isolation": lambda: _isolation(item),
        "Ports": lambda: ports(item.get("Ports") or []),
        "Names": lambda: names(item, whole=whole),
        "Labels": lambda: ",".join([f"{k}={v}" for k, v in sorted((item.get("Labels") or {}).items())]),
        "Label": lambda name: (item.get("Labels") or {}).get(name, ""),
        "LocalVolumes": lambda: str(sum(m.get("Driver") == "local" for m in item.get("Mounts") or [])),
        "Mounts": lambda: _mounts(item, whole=whole),
        "Networks": lambda: ",".join(sorted((item.get("NetworkSettings") or {}).get("Networks") or {})),
        "Platform": lambda: item.get("Platform") or "",
        "Size": lambda: _size(item),
    }


def _isolation(item: Object) -> str:
    wall = (item.get("HostConfig") or {}).get("Isolation") or "container"
    insecure = item.get("InsecureOptions")
    return f"{wall} (insecure: {','.join(insecure)})" if insecure else wall


def names(item: Object, *, whole: bool) -> str:
    """Names without the slash; links (`/web/db`) only when nothing is cut."""
    given = [name.removeprefix("/") for name in item.get("Names") or []]
    return ",".join(name for name in given if whole or "/" not in name)


def _image(item: Object, *, whole: bool) -> str:
    image = str(item["Image"])
    if not image:
        return "<no image>"
    if image.startswith("sha256:") and not whole:
        return units.short_id(image)
    if "@" in image and not whole:
        return image.partition("@")[0]
    return image


def _command(item: Object, *, whole: bool) -> str:
    from bastide.client.codec import pretty

    command = str(item["Command"])
    return pretty(command if whole else units.ellipsis(command, _COMMAND_WIDTH))


def _mounts(item: Object, *, whole: bool) -> str:
    shown = [str(mount.get("Name") or mount.get("Source", "")) for mount in item.get("Mounts") or []]
    return ",".join(name if whole else units.ellipsis(name, _MOUNT_WIDTH) for name in shown)


def _size(item: Object) -> str:
    own = units.human_size(item.get("SizeRw") or 0, 3)
    whole = item.get("SizeRootFs") or 0
    return f"{own} (virtual {units.human_size(whole, 3)})" if whole > 0 else own


def ports(items: list[Object]) -> str:
    """Ports as docker prints them: `0.0.0.0:8080->80/tcp, 81-82/udp`, neighbours joined."""
    groups: dict[tuple[str, str], list[int]] = {}
    lines: list[tuple[tuple[int, str], str]] = []
    for item in sorted(items, key=_port_order):
        inner, outer, kind = item["PrivatePort"], item.get("PublicPort") or 0, item["Type"]
        address = item.get("IP") or ""
        if outer and outer != inner:
            host = f"[{address}]" if ":" in address else address
            lines.append(((inner, kind), f"{host}:{outer}->{inner}/{kind}"))
        else:
            groups.setdefault((address if outer else "", kind), []).append(inner)
    for (address, kind), members in groups.items():
        lines += [((first, kind), _span(address, first, last, kind)) for first, last in _runs(members)]
    return ", ".join(line for _, line in sorted(lines, key=lambda row: row[0]))


def _port_order(item: Object) -> tuple[int, str, int, str]:
    return item["PrivatePort"], item.get("IP") or "", item.get("PublicPort") or 0, item["Type"]


def _runs(members: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for port in members:
        if found and port == found[-1][1] + 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found


def _span(address: str, first: int, last: int, kind: str) -> str:
    inside = f"{first}-{last}" if last > first else str(first)
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{inside}->{inside}/{kind}" if address else f"{inside}/{kind}"


COMMAND = Command(
    ps,
    "[OPTIONS]",
    (
        ("all", "a", SWITCH, "Show all containers (default shows just running)"),
        FILTERS,
        FORMAT,
        ("last", "n", INT, "Show the n last created containers, in any state"),
        ("latest", "l", SWITCH, "Show the latest created container, in any state"),
        NO_TRUNC,
        ("quiet", "q", SWITCH, "Only display container IDs"),
        ("size", "s", SWITCH, "Display total file sizes"),
    ),
    0,
    0,
    examples=(
        ("ps -a --filter status=exited", "what has stopped"),
        ("ps --format '{{.Names}}: {{.Isolation}}'", "what stands around each container"),
    ),
)

"""`bastide network`: create, connect, disconnect, ls, rm."""

from __future__ import annotations

from bastide.cli.grammar import INT, MAP, STRING, SWITCH, Command, Options, UsageError
from bastide.cli.options.container import pairs
from bastide.cli.show import moments, text
from bastide.cli.show.table import Listing
from bastide.cli.verbs.each import for_each
from bastide.cli.verbs.formats import FILTERS, FORMAT, NO_TRUNC, filters
from bastide.model.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bastide.client import Client, Object

_NANO = 10**9

TITLES = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
_SHOWN = ("ID", "Name", "Driver", "Scope")


def ls(client: Client, options: Options) -> int:
    """List networks, in order of their names."""
    found = sorted(client.networks.list(filters(options.all("filter"))), key=lambda item: str(item["Name"]))
    whole, form = options.on("no-trunc"), options.text("format")
    rows = [_fields(item, whole=whole) for item in found]
    if options.on("quiet") and form in ("", "table"):
        for row in rows:
            text.out(row["ID"]())
        return 0
    Listing("network.networkContext", TITLES, _SHOWN).print(form, rows)
    return 0


def _fields(item: Object, *, whole: bool) -> dict[str, Callable[..., Any]]:
    labels = item.get("Labels") or {}
    return {
        "ID": lambda: item["Id"] if whole else item["Id"][:12],
        "Name": lambda: item["Name"],
        "Driver": lambda: item["Driver"],
        "Scope": lambda: item["Scope"],
        "IPv4": lambda: str(bool(item.get("EnableIPv4", False))).lower(),
        "IPv6": lambda: str(bool(item.get("EnableIPv6"))).lower(),
        "Internal": lambda: str(bool(item.get("Internal"))).lower(),
        "Labels": lambda: ",".join([f"{key}={value}" for key, value in sorted(labels.items())]),
        "Label": lambda name: labels.get(name, ""),
        "CreatedAt": lambda: _created(str(item.get("Created") or "")),
    }


def _created(moment: str) -> str:
    if not moment:
        return ""
    parsed = moments.parse(moment)
    whole = moments.local(parsed // _NANO)
    fraction = f"{parsed % _NANO:09}".rstrip("0")
    return f"{whole[:19]}.{fraction}{whole[19:]}" if fraction else whole


def create(client: Client, options: Options) -> int:
    """Create a network and print its id."""
    body: Object = {
        "Name": options.arguments[0],
        "Driver": options.text("driver", "bridge"),
        "Options": pairs(options.all("opt")),
        "Labels": pairs(options.all("label")),
        "Internal": options.on("internal"),
        "Attachable": options.on("attachable"),
        "EnableIPv6": options.on("ipv6"),
        "IPAM": {
            "Driver": options.text("ipam-driver", "default"),
            "Options": pairs(options.all("ipam-opt")),
            "Config": pools(options),
        },
        "CheckDuplicate": True,
    }
    if "ipv4" in options:
        body["EnableIPv4"] = options.on("ipv4")
    if options.text("scope"):
        body["Scope"] = options.text("scope")
    answer = client.networks.create(body)
    if answer.get("Warning"):
        text.err(f"WARNING: {text.one_line(answer['Warning'])}")
    text.out(answer["Id"])
    return 0


def pools(options: Options) -> list[Object]:
    """IPAM's pools: every gateway, range and auxiliary address goes to the subnet that it is in."""
    import ipaddress

    made: list[Object] = []
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for subnet in options.all("subnet"):
        try:
            network = ipaddress.ip_network(subnet, strict=False)
        except ValueError:
            raise UsageError(f"invalid subnet {subnet}: invalid CIDR block notation", 1) from None
        if any(network.version == other.version and network.overlaps(other) for other in networks):
            raise UsageError("multiple overlapping subnet configuration is not supported", 1)
        networks.append(network)
        made.append({"Subnet": subnet})

    def home(address: str, what: str) -> Object:
        try:
            wanted = ipaddress.ip_interface(address).ip
        except ValueError:
            raise UsageError(f"invalid {what} {address}", 1) from None
        for network, pool in zip(networks, made, strict=True):
            if wanted in network:
                return pool
        raise UsageError(f"no matching subnet for {what} {address}", 1)

    for span in options.all("ip-range"):
        home(span, "range")["IPRange"] = span
    for gateway in options.all("gateway"):
        home(gateway, "gateway")["Gateway"] = gateway
    for name, address in pairs(options.all("aux-address")).items():
        home(address, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = address
    return made


def connect(client: Client, options: Options) -> int:
    """Connect a container to a network."""
    network, container = options.arguments
    addresses: Object = {}
    for name, field in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if name in options:
            addresses[field] = options.text(name)
    if "link-local-ip" in options:
        addresses["LinkLocalIPs"] = options.all("link-local-ip")
    endpoint: Object = {"IPAMConfig": addresses} if addresses else {}
    for name, field in (("alias", "Aliases"), ("link", "Links")):
        if name in options:
            endpoint[field] = options.all(name)
    if "driver-opt" in options:
        endpoint["DriverOpts"] = pairs(options.all("driver-opt"))
    if "gw-priority" in options:
        endpoint["GwPriority"] = options.number("gw-priority")
    client.networks.connect(network, container, endpoint)
    return 0


def disconnect(client: Client, options: Options) -> int:
    """Disconnect a container from a network."""
    network, container = options.arguments
    client.networks.disconnect(network, container, options.on("force"))
    return 0


def remove(client: Client, options: Options) -> int:
    """Remove networks and print their names."""

    def one(name: str) -> None:
        try:
            client.networks.remove(name)
        except NotFound:
            if not options.on("force"):
                raise
        else:
            text.out(name)

    return for_each(options.arguments, one, silent=True)


LIST = Command(ls, "[OPTIONS]", (FILTERS, FORMAT, NO_TRUNC, ("quiet", "q", SWITCH, "Only display network IDs")), 0, 0)
CREATE = Command(
    create,
    "[OPTIONS] NETWORK",
    (
        ("attachable", "", SWITCH, "Let containers be attached by hand"),
        ("aux-address", "", MAP, "Addresses that are used by others (name=address)"),
        ("driver", "d", STRING, "Driver to manage the network (default bridge)"),
        ("gateway", "", "list", "Gateway of the subnet that it is in"),
        ("internal", "", SWITCH, "Restrict external access to the network"),
        ("ip-range", "", "list", "Give containers addresses from this part of a subnet"),
        ("ipam-driver", "", STRING, "IP address management driver"),
        ("ipam-opt", "", MAP, "Options of that driver"),
        ("ipv4", "", SWITCH, "Give out IPv4 addresses"),
        ("ipv6", "", SWITCH, "Give out IPv6 addresses, too"),
        ("label", "", "list", "Set metadata on the network"),
        ("opt", "o", MAP, "Set driver specific options"),
        ("scope", "", STRING, "Scope of the network"),
        ("subnet", "", "list", "Subnet in CIDR form"),
    ),
    1,
    1,
    examples=(("network create --subnet 10.5.0.0/24 --internal db", "a network without a way out"),),
)
CONNECT = Command(
    connect,
    "[OPTIONS] NETWORK CONTAINER",
    (
        ("alias", "", "list", "Add a network-scoped alias for the container"),
        ("driver-opt", "", "list", "Driver options for the network"),
        ("gw-priority", "", INT, "The highest one's gateway becomes the default one"),
        ("ip", "", STRING, "IPv4 address (e.g., 172.30.100.104)"),
        ("ip6", "", STRING, "IPv6 address (e.g., 2001:db8::33)"),
        ("link", "", "list", "Add a link to another container"),
        ("link-local-ip", "", "list", "Add a link-local address for the container"),
    ),
    2,
    2,
)
DISCONNECT = Command(
    disconnect,
    "[OPTIONS] NETWORK CONTAINER",
    (("force", "f", SWITCH, "Force the container to disconnect"),),
    2,
    2,
)
REMOVE = Command(
    remove,
    "NETWORK [NETWORK...]",
    (("force", "f", SWITCH, "Do not error if the network does not exist"),),
    1,
)

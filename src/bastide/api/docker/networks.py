"""Networks: make, find, remove, and put containers on them."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from bastide.api.docker.container_filters import has_label, labelled, matches_text
from bastide.api.http import ENGINE, body, filters, nothing, reply, version
from bastide.api.times import epoch, moment
from bastide.engine.connections import driver_name
from bastide.engine.endpoints import PREDEFINED
from bastide.engine.networks import Networks
from bastide.model.errors import InvalidArgument, NotFound
from bastide.model.network import IPAM, EndpointSettings, IPAMPool, Network
from bastide.model.wire import Wire

_ACCEPTED = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_PRUNE_ACCEPTED = frozenset(("label", "label!", "until"))
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


class Create(Wire, frozen=True, kw_only=True):
    """The body of a create."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, Any] | None = None
    ipam: IPAM | None = None
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Connect(Wire, frozen=True, kw_only=True):
    """The body of a connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class Disconnect(Wire, frozen=True, kw_only=True):
    """The body of a disconnect."""

    container: str = ""
    force: bool = False


def _pool(pool: IPAMPool) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(pool)
    return {name: value for name, value in plain.items() if value}


def shown(network: Network, asked: tuple[int, int]) -> dict[str, Any]:
    """A network as the list of the Docker Engine API shows it to a client of version `asked`."""
    pools = [_pool(pool) for pool in network.ipam.config or []]
    described = {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": network.scope,
        "Driver": driver_name(network),
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam.driver or "default",
            "Options": network.ipam.options,
            "Config": pools or (None if network.name in PREDEFINED else []),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": network.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": network.config_only,
        "Containers": {},
        "Options": network.options,
        "Labels": network.labels,
    }
    if asked < (1, 47):
        del described["EnableIPv4"]
    return described


def _containers(networks: Networks, network: Network) -> dict[str, Any]:
    found = {}
    for container, endpoint in networks.endpoints(network).items():
        addresses = endpoint.interface.addresses
        found[container] = {
            "Name": networks.container_name(container),
            "EndpointID": endpoint.id,
            "MacAddress": endpoint.interface.mac,
            "IPv4Address": next((each for each in addresses if ":" not in each), ""),
            "IPv6Address": next((each for each in addresses if ":" in each), ""),
        }
    return found


def _passes(networks: Networks, network: Network, wanted: dict[str, list[str]]) -> bool:
    """Whether a network passes the filters of a list. Raises InvalidArgument."""
    checks = {
        "driver": lambda values: driver_name(network) in values,
        "id": lambda values: matches_text(network.id, values),
        "name": lambda values: matches_text(network.name, values),
        "scope": lambda values: network.scope in values,
        "label": lambda values: all(has_label(network.labels, value) for value in values),
        "type": lambda values: _is_of(network, values),
        "dangling": lambda values: (
            network.name not in PREDEFINED and (not networks.endpoints(network)) is _truth("dangling", values)
        ),
    }
    return all(checks[name](values) for name, values in wanted.items())


def _is_of(network: Network, values: list[str]) -> bool:
    for value in values:
        if value not in ("custom", "builtin"):
            raise InvalidArgument(f"invalid filter: 'type'='{value}'")
    return ("builtin" if network.name in PREDEFINED else "custom") in values


def _truth(name: str, values: list[str]) -> bool:
    try:
        return _TRUTH[values[0].lower()]
    except KeyError:
        raise InvalidArgument(f"invalid filter '{name}={values}'") from None


async def list_networks(request: web.Request) -> web.Response:
    """`GET /networks`."""
    networks = request.app[ENGINE].networks
    wanted = filters(request, _ACCEPTED)
    chosen = [network for network in networks.list() if _passes(networks, network, wanted)]
    asked = version(request)
    rows = [shown(network, asked) for network in chosen]
    if asked < (1, 28):
        rows = [row | {"Containers": _containers(networks, network)} for row, network in zip(rows, chosen, strict=True)]
    return reply(rows)


async def inspect(request: web.Request) -> web.Response:
    """`GET /networks/{id}`."""
    networks = request.app[ENGINE].networks
    network = networks.get(request.match_info["id"])
    scope = request.query.get("scope", "")
    if scope and network.scope != scope:
        raise NotFound(f"network {request.match_info['id']} not found")
    return reply(shown(network, version(request)) | {"Containers": _containers(networks, network)})


async def create(request: web.Request) -> web.Response:
    """`POST /networks/create`."""
    wanted = await body(request, Create)
    network = Network(
        name=wanted.name,
        id="",
        created="",
        driver={"": "bridge", "null": "none"}.get(wanted.driver, wanted.driver),
        scope=wanted.scope or "local",
        enable_ipv4=wanted.enable_ipv4 if wanted.enable_ipv4 is not None else True,
        enable_ipv6=bool(wanted.enable_ipv6),
        ipam=wanted.ipam or IPAM(),
        internal=wanted.internal,
        attachable=wanted.attachable,
        ingress=wanted.ingress,
        config_only=wanted.config_only,
        options=wanted.options or {},
        labels=wanted.labels or {},
        config_from=wanted.config_from or {"Network": ""},
    )
    made = await request.app[ENGINE].networks.create(network)
    return reply({"Id": made.id, "Warning": ""}, 201)


async def remove(request: web.Request) -> web.Response:
    """`DELETE /networks/{id}`."""
    await request.app[ENGINE].networks.remove(request.match_info["id"])
    return nothing()


async def connect(request: web.Request) -> web.Response:
    """`POST /networks/{id}/connect`."""
    wanted = await body(request, Connect)
    settings = wanted.endpoint_config or EndpointSettings()
    await request.app[ENGINE].networks.connect(request.match_info["id"], wanted.container, settings)
    return nothing(200)


async def disconnect(request: web.Request) -> web.Response:
    """`POST /networks/{id}/disconnect`."""
    wanted = await body(request, Disconnect)
    await request.app[ENGINE].networks.disconnect(request.match_info["id"], wanted.container, wanted.force)
    return nothing(200)


async def prune(request: web.Request) -> web.Response:
    """`POST /networks/prune`."""
    networks = request.app[ENGINE].networks
    wanted = filters(request, _PRUNE_ACCEPTED)
    until = [moment(value, name="until") for value in wanted.get("until", ())]
    chosen = [
        network
        for network in networks.list()
        if labelled(network.labels, wanted) and all(epoch(network.created) <= end for end in until)
    ]
    removed = await networks.prune(chosen)
    return reply({"NetworksDeleted": [network.name for network in removed] or None})


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    return [
        web.get("/networks", list_networks),
        web.post("/networks/create", create),
        web.post("/networks/prune", prune),
        web.get("/networks/{id}", inspect),
        web.delete("/networks/{id}", remove),
        web.post("/networks/{id}/connect", connect),
        web.post("/networks/{id}/disconnect", disconnect),
    ]

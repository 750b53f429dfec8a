"""A container's endpoints: what a client may ask for, and what it is shown of what it got."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import msgspec

from bastide.model.container import Container, HostConfig
from bastide.model.errors import InvalidArgument
from bastide.model.network import EndpointIPAM, EndpointSettings, Network
from bastide.network import Endpoint, Port, endpoint_options, ipam, resolv
from bastide.network.names import ordered

DEFAULT = "bridge"
"""The network of containers that name none."""
PREDEFINED = (DEFAULT, "host", "none")


def mode_network(mode: str) -> str:
    """The network that a network mode names."""
    return DEFAULT if mode in ("", "default") else mode


def shares_with(mode: str) -> str:
    """Whose network a mode of the form `container:NAME` shares; empty otherwise."""
    kind, colon, other = mode.partition(":")
    return other if kind == "container" and colon else ""


def check_host_config(host: HostConfig) -> None:
    """What can be judged without a network. Raises InvalidArgument in Docker's words."""
    mode = host.network_mode
    if mode.startswith("container:") and not shares_with(mode):
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    if shares_with(mode):
        for given, what in (
            (host.links, "container type network can't be used with links. This would result in undefined behavior"),
            (host.dns, "dns and the network mode"),
            (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
            (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        ):
            if given:
                raise InvalidArgument(f"conflicting options: {what}")
    if mode == "host" and host.links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. This would result in "
            "undefined behavior"
        )
    for entry in host.extra_hosts or []:
        resolv.extra_host(entry, "0.0.0.0")
    for server in host.dns or []:
        ipam.address(server, "DNS server")
    for word in (*(host.dns_search or []), *(host.dns_options or [])):
        if not word or any(c.isspace() or not c.isprintable() for c in word):
            raise InvalidArgument(f"invalid DNS search domain or option: {word!r}")


def check_endpoint(settings: EndpointSettings, network: str) -> EndpointSettings:
    """What a client asks for on a network, without what only the engine says. Raises InvalidArgument."""
    asked = settings.ipam_config
    if asked is not None and (asked.ipv4_address or asked.ipv6_address):
        if network in PREDEFINED:
            raise InvalidArgument(
                "invalid endpoint settings: user specified IP address is supported on user defined networks only"
            )
        for version, text in ((4, asked.ipv4_address), (6, asked.ipv6_address)):
            if text and _version(text) != version:
                raise InvalidArgument(f"invalid endpoint settings: invalid IPv{version} address: {text}")
    endpoint_options.check(settings)
    if network in ("host", "none") and (settings.driver_opts or (asked and asked.link_local_ips)):
        raise InvalidArgument(f"invalid endpoint settings: network {network} has no interface to configure")
    for alias in settings.aliases or []:
        if not alias or len(alias) > 253 or any(c.isspace() or not c.isprintable() for c in alias):
            raise InvalidArgument(f"invalid network alias: {alias!r}")
    return EndpointSettings(
        ipam_config=asked,
        links=settings.links,
        aliases=settings.aliases,
        mac_address=ipam.check_mac(settings.mac_address) if settings.mac_address else "",
        driver_opts=settings.driver_opts,
        gw_priority=settings.gw_priority,
    )


def _version(text: str) -> int:
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return 0


def wanted(
    host: HostConfig, given: dict[str, EndpointSettings], mac: str, find: Callable[[str], Network]
) -> dict[str, EndpointSettings]:
    """A new container's endpoints by network name. Raises NotFound (network), InvalidArgument."""
    check_host_config(host)
    if shares_with(host.network_mode):
        return {}
    main = find(mode_network(host.network_mode)).name
    found = {main: EndpointSettings()}
    for reference, settings in given.items():
        name = find(mode_network(reference)).name
        found[name] = check_endpoint(settings, name)
    if mac and not found[main].mac_address:
        found[main] = msgspec.structs.replace(found[main], mac_address=ipam.check_mac(mac))
    if len(found) > 1:
        check_together(list(found))
    return found


def check_together(names: list[str]) -> None:
    """Raise InvalidArgument, in Docker's words, for networks that cannot be had together."""
    if "host" in names:
        raise InvalidArgument(
            "container sharing network namespace with another container or host cannot be connected to any "
            "other network"
        )
    if "none" in names:
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )


def asked(settings: EndpointSettings) -> EndpointSettings:
    """What was asked for in settings that already say what was got: a MAC address that follows from the
    IP address was not asked for."""
    derived = {ipam.mac_for(ipam.address(own)) for own in (settings.ip_address, settings.global_ipv6_address) if own}
    mac = "" if settings.mac_address in derived else settings.mac_address
    return EndpointSettings(
        ipam_config=settings.ipam_config,
        links=settings.links,
        aliases=settings.aliases,
        mac_address=mac,
        driver_opts=settings.driver_opts,
        gw_priority=settings.gw_priority,
    )


def is_plain(settings: EndpointSettings) -> bool:
    """Whether any interface will do."""
    own = settings.ipam_config or EndpointIPAM()
    return not (settings.mac_address or settings.driver_opts or own != EndpointIPAM())


def names(container: Container, settings: EndpointSettings) -> tuple[str, ...]:
    """The names of a container on a network, the first its own."""
    return ordered((container.name, *(settings.aliases or []), container.id[:12], container.config.hostname))


def described(
    container: Container, settings: EndpointSettings, network: Network, endpoint: Endpoint
) -> EndpointSettings:
    """The settings with what the endpoint got."""
    interface = endpoint.interface
    own = [ipaddress.ip_interface(cidr) for cidr in interface.addresses]
    four = next((each for each in own if each.version == 4), None)
    six = next((each for each in own if each.version == 6), None)
    gateways = {ipam.address(gateway).version: gateway for gateway in interface.gateways}
    return msgspec.structs.replace(
        settings,
        network_id=network.id,
        endpoint_id=endpoint.id,
        mac_address=interface.mac,
        gateway=gateways.get(4, ""),
        ip_address=str(four.ip) if four else "",
        ip_prefix_len=four.network.prefixlen if four else 0,
        ipv6_gateway=gateways.get(6, ""),
        global_ipv6_address=str(six.ip) if six else "",
        global_ipv6_prefix_len=six.network.prefixlen if six else 0,
        dns_names=list(names(container, settings)) if network.name not in PREDEFINED else None,
    )


def order(container: Container, settings: dict[str, EndpointSettings]) -> list[str]:
    """Network names in the order of devices; the first gives the default route."""
    main = mode_network(container.host_config.network_mode)
    return sorted(settings, key=lambda name: (-settings[name].gw_priority, name != main, name))


def published(endpoints: list[Endpoint]) -> list[Port]:
    """All published ports."""
    return [port for endpoint in endpoints for port in endpoint.ports]

"""Who is called what on which network: what the resolvers answer from.

Names belong to a network. Somebody who asks is known by the address that the question comes from, and
gets the names of all networks that it is on, and of no other: nobody can shadow a name for others.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Sequence

from bastide.model.process import Struct
from bastide.network.ipam import Address


class Place(Struct, frozen=True, kw_only=True):
    """A container's part in one network: its addresses there and the names that lead to them."""

    network: str
    network_name: str
    addresses: tuple[Address, ...]
    names: tuple[str, ...]
    internal: bool = False


class Resident(Struct, frozen=True, kw_only=True):
    """A container with its places, in the order in which they are searched.

    `links` are names that it alone uses for other containers; `servers` its own upstream resolvers.
    """

    container: str
    places: tuple[Place, ...]
    links: dict[str, str] = {}
    servers: tuple[str, ...] = ()


def fold(name: str) -> str:
    """A name as it is compared: lower case, no dot at the end."""
    return name.rstrip(".").lower()


class Directory:
    """All residents."""

    def __init__(self) -> None:
        self._residents: dict[str, Resident] = {}
        self._by_address: dict[tuple[str, Address], str] = {}
        self._by_name: dict[tuple[str, str], list[str]] = {}

    def put(self, resident: Resident) -> None:
        """Add a container, or replace what was known of it."""
        self.discard(resident.container)
        if not resident.places:
            return
        self._residents[resident.container] = resident
        for place in resident.places:
            for own in place.addresses:
                self._by_address[place.network, own] = resident.container
            for name in _known_as(place):
                self._by_name.setdefault((place.network, name), []).append(resident.container)

    def discard(self, container: str) -> None:
        """Forget a container; unknown is no error."""
        known = self._residents.pop(container, None)
        if known is None:
            return
        for place in known.places:
            for own in place.addresses:
                if self._by_address.get((place.network, own)) == container:
                    del self._by_address[place.network, own]
            for name in _known_as(place):
                bearers = self._by_name.get((place.network, name), [])
                if container in bearers:
                    bearers.remove(container)
                if not bearers:
                    self._by_name.pop((place.network, name), None)

    def asker(self, network: str, source: Address) -> Resident | None:
        """Who has an address on a network."""
        return self._residents.get(self._by_address.get((network, source), ""))

    def find(self, asker: Resident | None, network: str, name: str) -> list[Address] | None:
        """The addresses that a name leads to for somebody on `network`; None when nobody has that name."""
        wanted = fold(name)
        if asker is not None and (target := asker.links.get(wanted)):
            shared = {place.network for place in asker.places}
            if found := self._addresses(target, shared):
                return found
        for each in [place.network for place in asker.places] if asker is not None else [network]:
            if bearers := self._by_name.get((each, wanted)):
                turned = random.sample(bearers, len(bearers))
                return [own for bearer in turned for own in self._addresses(bearer, {each})]
        return None

    def _addresses(self, container: str, networks: Iterable[str]) -> list[Address]:
        known = self._residents.get(container)
        return [own for place in known.places if place.network in networks for own in place.addresses] if known else []

    def name_of(self, asker: Resident | None, network: str, own: Address) -> str | None:
        """The full name (`name.network`) of an address, for somebody on `network`."""
        for each in [place.network for place in asker.places] if asker is not None else [network]:
            bearer = self._residents.get(self._by_address.get((each, own), ""))
            for place in bearer.places if bearer else ():
                if place.network == each and place.names:
                    return f"{place.names[0]}.{place.network_name}"
        return None


def _known_as(place: Place) -> set[str]:
    plain = {fold(name) for name in place.names if name}
    return plain | {f"{name}.{fold(place.network_name)}" for name in plain}


def reverse_address(name: str) -> Address | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for (RFC 1035, RFC 3596)."""
    labels = fold(name).split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return ipaddress.IPv6Address(bytes.fromhex("".join(reversed(labels[:32]))))
    except ValueError:
        return None
    return None


def ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Names without doubles and empty ones, in order."""
    return tuple(dict.fromkeys(name for name in names if name))

"""Addresses: which subnets a network gets, and which address each endpoint.

Subnets are given or cut from the settings' pools; addresses go round, so that one that was given back
is not given out again at once. Docker's words for what is refused.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

from bastide.model.errors import Conflict, InvalidArgument, PermissionDenied, ResourceExhausted
from bastide.model.network import IPAM, IPAMPool, Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_POOL_PREFIX = 24
"""Size of the IPv4 subnets that user networks get."""


def subnet(text: str) -> Subnet:
    """A subnet in CIDR notation. Raises InvalidArgument."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid subnet {text}: it must be in CIDR notation, as 10.1.0.0/16") from None


def address(text: str, what: str = "address") -> Address:
    """An IP address. Raises InvalidArgument."""
    try:
        return ipaddress.ip_address(text.partition("/")[0])
    except ValueError:
        raise InvalidArgument(f"invalid {what} {text!r}: it is no IP address") from None


def overlap(wanted: Subnet, others: Iterable[Subnet]) -> bool:
    """Whether a subnet shares addresses with one of `others`."""
    return any(wanted.version == other.version and wanted.overlaps(other) for other in others)


def subnets(network: Network) -> list[Subnet]:
    """The subnets of a planned network."""
    return [subnet(pool.subnet) for pool in network.ipam.config or [] if pool.subnet]


def gateways(network: Network) -> list[str]:
    """The gateways of a planned network, in CIDR notation with their subnet's prefix."""
    return [
        f"{pool.gateway}/{subnet(pool.subnet).prefixlen}"
        for pool in network.ipam.config or []
        if pool.subnet and pool.gateway
    ]


def plan(network: Network, existing: Sequence[Network], occupied: Sequence[Subnet], pools: Sequence[str]) -> Network:
    """The network with subnets and gateways filled in.

    `occupied` are subnets that the host reaches in other ways: automatic ones keep clear of them.
    Raises InvalidArgument, PermissionDenied (subnets overlap; Docker's status), ResourceExhausted.
    """
    if network.ipam.driver not in ("", "default"):
        raise InvalidArgument(f"could not find address management driver {network.ipam.driver!r}: only default exists")
    taken = [each for other in existing for each in subnets(other)]
    planned: list[IPAMPool] = []
    for pool in network.ipam.config or []:
        if not pool.subnet:
            if pool.gateway or pool.ip_range or pool.auxiliary_addresses:
                raise InvalidArgument("invalid network config: a gateway, range or address needs a subnet")
            continue
        checked = _check(pool)
        own = subnet(checked.subnet)
        if overlap(own, taken):
            raise PermissionDenied("invalid pool request: Pool overlaps with other one on this address space")
        taken.append(own)
        planned.append(checked)
    families = {subnet(pool.subnet).version for pool in planned}
    if 6 in families and not network.enable_ipv6:
        network = msgspec.structs.replace(network, enable_ipv6=True)
    if network.enable_ipv4 and 4 not in families:
        planned.insert(0, _check(IPAMPool(subnet=str(_free(pools, [*taken, *occupied])))))
    if network.enable_ipv6 and 6 not in families:
        planned.append(_check(IPAMPool(subnet=str(_unique_local(network.id, [*taken, *occupied])))))
    ipam = IPAM(driver="default", options=network.ipam.options or {}, config=planned)
    return msgspec.structs.replace(network, ipam=ipam)


def _check(pool: IPAMPool) -> IPAMPool:
    """A pool whose parts fit each other, with a gateway."""
    own = subnet(pool.subnet)
    if str(own) != pool.subnet and ipaddress.ip_interface(pool.subnet).ip != own.network_address:
        raise InvalidArgument(f"invalid subnet {pool.subnet}: it should be {own}")
    if own.num_addresses < 4 and not (own.version == 4 and own.prefixlen == 31):
        raise InvalidArgument(f"invalid subnet {pool.subnet}: it is too small for a gateway and a container")
    if pool.ip_range:
        part = subnet(pool.ip_range)
        if part.version != own.version or not part.subnet_of(own):  # type: ignore[arg-type]
            raise InvalidArgument(f"invalid ip-range {pool.ip_range}: it is not within the subnet {own}")
    for name, text in (pool.auxiliary_addresses or {}).items():
        if address(text) not in own:
            raise InvalidArgument(f"invalid auxiliary address {name}={text}: it is not within the subnet {own}")
    gateway = pool.gateway or str(_first(own, pool))
    if address(gateway, "gateway") not in own:
        raise InvalidArgument(f"invalid gateway {gateway}: it is not within the subnet {own}")
    return msgspec.structs.replace(pool, subnet=str(own), gateway=str(address(gateway)))


def _first(own: Subnet, pool: IPAMPool) -> Address:
    """The gateway that nobody chose: Docker's rule, the first address that containers could have."""
    kept = {address(text) for text in (pool.auxiliary_addresses or {}).values()}
    usable: Iterable[Address] = own.hosts()
    if pool.ip_range:
        usable = (one for one in subnet(pool.ip_range) if one not in (own.network_address, own.broadcast_address))
    found = next((one for one in usable if one not in kept), None)
    if found is None:
        raise InvalidArgument(f"invalid network config: no address of {pool.ip_range or own} is left for a gateway")
    return found


def _free(pools: Sequence[str], taken: Sequence[Subnet]) -> Subnet:
    """The first free /24 (or smaller pool) of the settings' pools."""
    for text in pools:
        pool = subnet(text)
        if pool.version != 4:
            continue
        for candidate in pool.subnets(new_prefix=max(_POOL_PREFIX, pool.prefixlen)):
            if not overlap(candidate, taken):
                return candidate
    raise ResourceExhausted("all predefined address pools have been fully subnetted")


def _unique_local(network_id: str, taken: Sequence[Subnet]) -> Subnet:
    """A unique local /64 (RFC 4193) that follows from the network's id."""
    for turn in range(16):
        digest = hashlib.sha256(f"{network_id} {turn}".encode()).digest()
        candidate = ipaddress.IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        if not overlap(candidate, taken):
            return candidate
    raise ResourceExhausted("no unique local IPv6 subnet is free")


class Pool:
    """The addresses of one subnet, given out in turn."""

    def __init__(self, pool: IPAMPool) -> None:
        self.subnet = subnet(pool.subnet)
        self.gateway = address(pool.gateway) if pool.gateway else None
        within = subnet(pool.ip_range) if pool.ip_range else self.subnet
        self._first, self._last = int(within.network_address), int(within.broadcast_address)
        reserved = {int(address(text)) for text in (pool.auxiliary_addresses or {}).values()}
        if self.gateway is not None:
            reserved.add(int(self.gateway))
        if self.subnet.prefixlen < self.subnet.max_prefixlen - 1:
            reserved.add(int(self.subnet.network_address))
            if self.subnet.version == 4:
                reserved.add(int(self.subnet.broadcast_address))
        self._reserved = reserved
        self._used: set[int] = set()
        self._next = self._first

    def take(self, wanted: Address | None = None) -> Address:
        """An address: `wanted`, or the next free one. Raises Conflict (taken), ResourceExhausted."""
        if wanted is not None:
            if int(wanted) in self._used or int(wanted) in self._reserved:
                raise Conflict("Address already in use")
            self._used.add(int(wanted))
            return wanted
        size = self._last - self._first + 1
        for _ in range(min(size, len(self._used) + len(self._reserved) + 1)):
            candidate = self._next
            self._next = candidate + 1 if candidate < self._last else self._first
            if candidate not in self._used and candidate not in self._reserved:
                self._used.add(candidate)
                return self.subnet.network_address + (candidate - int(self.subnet.network_address))
        raise ResourceExhausted(f"no available IPv{self.subnet.version} addresses on this network's address pools")

    def mark(self, used: Address) -> None:
        """Take up an address that is in use already."""
        self._used.add(int(used))

    def give_back(self, used: Address) -> None:
        """End a lease; of no effect on one that is not held."""
        self._used.discard(int(used))


class Leases:
    """The addresses of one network."""

    def __init__(self, network: Network) -> None:
        self.pools = [Pool(pool) for pool in network.ipam.config or [] if pool.subnet]

    def take(self, ipv4: str = "", ipv6: str = "") -> list[tuple[Address, Pool]]:
        """One address of each family that the network has, with its pool; the IPv4 one first.

        Raises InvalidArgument (no subnet holds it), Conflict (taken), ResourceExhausted; then none is held.
        """
        got: list[tuple[Address, Pool]] = []
        try:
            for version, asked in ((4, ipv4), (6, ipv6)):
                if found := self._one(version, asked):
                    got.append(found)
        except BaseException:
            for held, pool in got:
                pool.give_back(held)
            raise
        return got

    def _one(self, version: int, asked: str) -> tuple[Address, Pool] | None:
        pools = [pool for pool in self.pools if pool.subnet.version == version]
        if asked:
            wanted = address(asked)
            for pool in pools:
                if wanted in pool.subnet:
                    return pool.take(wanted), pool
            raise InvalidArgument(
                f"no configured subnet or ip-range contain the IP address {asked}"
                if wanted.version == version
                else f"invalid IPv{version} address: {asked}"
            )
        for number, pool in enumerate(pools):
            try:
                return pool.take(), pool
            except ResourceExhausted:
                if number == len(pools) - 1:
                    raise
        return None

    def mark(self, cidr: str) -> None:
        """Take up an address in use, in CIDR notation."""
        used = address(cidr)
        for pool in self.pools:
            if used in pool.subnet:
                pool.mark(used)

    def give_back(self, cidr: str) -> None:
        """End the lease of an address in CIDR notation."""
        used = address(cidr)
        for pool in self.pools:
            if used in pool.subnet:
                pool.give_back(used)


def mac_for(lease: Address) -> str:
    """A locally administered MAC address that follows from an IP address, as Docker makes them."""
    return (b"\x02\x42" + lease.packed[-4:]).hex(":")


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The link-local IPv6 address that the kernel makes of a MAC address (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:]))


def check_mac(mac: str) -> str:
    """A unicast MAC address in lower case. Raises InvalidArgument."""
    parts = mac.replace("-", ":").lower().split(":")
    if len(parts) != 6 or any(len(p) != 2 or not set(p) <= set("0123456789abcdef") for p in parts):
        raise InvalidArgument(f"invalid MAC address: {mac}")
    if int(parts[0], 16) & 1 or set(parts) == {"00"}:
        raise InvalidArgument(f"invalid MAC address: {mac} is not the address of one device")
    return ":".join(parts)

"""Subnets and addresses."""

from __future__ import annotations

import ipaddress

import pytest

from bastide.model.errors import Conflict, InvalidArgument, PermissionDenied, ResourceExhausted
from bastide.model.network import IPAM, IPAMPool, Network
from bastide.network import ipam


def network(*pools: IPAMPool, **fields: object) -> Network:
    base: dict[str, object] = {"name": "n", "id": "ab" * 32, "created": "", "driver": "bridge"}
    return Network(**{**base, "ipam": IPAM(config=list(pools)), **fields})  # type: ignore[arg-type]


def plan(wanted: Network, *existing: Network, occupied: tuple[str, ...] = ()) -> list[IPAMPool]:
    nets = [ipam.subnet(text) for text in occupied]
    return ipam.plan(wanted, existing, nets, ("10.90.0.0/23",)).ipam.config or []


def test_subnets_are_cut_from_the_pools_and_keep_clear() -> None:
    first = plan(network())
    assert (first[0].subnet, first[0].gateway) == ("10.90.0.0/24", "10.90.0.1")
    assert plan(network(), network(*first))[0].subnet == "10.90.1.0/24"
    assert plan(network(), occupied=("10.90.0.128/25",))[0].subnet == "10.90.1.0/24"
    with pytest.raises(ResourceExhausted, match="fully subnetted"):
        plan(network(), network(*first), occupied=("10.90.1.0/24",))


def test_what_the_host_reaches_may_be_asked_for() -> None:
    assert plan(network(IPAMPool(subnet="192.168.7.0/24")), occupied=("192.168.0.0/16",))[0].gateway == "192.168.7.1"


def test_overlaps_are_forbidden() -> None:
    other = network(IPAMPool(subnet="10.1.0.0/16"))
    with pytest.raises(PermissionDenied, match="invalid pool request: Pool overlaps"):
        plan(network(IPAMPool(subnet="10.1.2.0/24")), other)
    with pytest.raises(PermissionDenied):
        plan(network(IPAMPool(subnet="10.3.0.0/16"), IPAMPool(subnet="10.3.1.0/24")))


@pytest.mark.parametrize(
    "pool",
    [
        IPAMPool(subnet="10.1.0.0"),
        IPAMPool(subnet="10.1.0.5/24"),
        IPAMPool(subnet="10.1.0.0/32"),
        IPAMPool(subnet="10.1.0.0/24", gateway="10.2.0.1"),
        IPAMPool(subnet="10.1.0.0/24", gateway="door"),
        IPAMPool(subnet="10.1.0.0/24", ip_range="10.2.0.0/25"),
        IPAMPool(subnet="10.1.0.0/24", ip_range="fd00::/64"),
        IPAMPool(subnet="10.1.0.0/24", auxiliary_addresses={"a": "10.9.9.9"}),
        IPAMPool(ip_range="10.1.0.0/25"),
        IPAMPool(subnet="10.1.0.0/24 } ; flush ruleset"),
    ],
    ids=str,
)
def test_nonsense_is_refused(pool: IPAMPool) -> None:
    if pool.subnet == "10.1.0.0":
        assert plan(network(IPAMPool(subnet="10.1.0.0/30")))
        with pytest.raises(InvalidArgument):
            plan(network(pool))
        return
    with pytest.raises(InvalidArgument):
        plan(network(pool))


def test_a_foreign_address_manager_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="swamp"):
        ipam.plan(network(ipam=IPAM(driver="swamp")), (), (), ())


def test_ipv6_is_unique_local_and_follows_from_the_id() -> None:
    pools = plan(network(enable_ipv6=True))
    assert [ipam.subnet(pool.subnet).version for pool in pools] == [4, 6]
    six = ipam.subnet(pools[1].subnet)
    assert six.subnet_of(ipaddress.IPv6Network("fd00::/8"))  # type: ignore[arg-type]
    assert six.prefixlen == 64
    assert plan(network(enable_ipv6=True))[1] == pools[1]
    only = plan(network(enable_ipv6=True, enable_ipv4=False))
    assert [ipam.subnet(pool.subnet).version for pool in only] == [6]


def test_a_subnet_of_ipv6_enables_it() -> None:
    planned = ipam.plan(network(IPAMPool(subnet="fd00:5::/64")), (), (), ("10.90.0.0/24",))
    assert planned.enable_ipv6
    assert [pool.subnet for pool in planned.ipam.config or []] == ["10.90.0.0/24", "fd00:5::/64"]


def pool(subnet: str = "10.1.0.0/29", **fields: object) -> ipam.Pool:
    return ipam.Pool(IPAMPool(subnet=subnet, gateway="10.1.0.1", **fields))  # type: ignore[arg-type]


def test_addresses_go_round() -> None:
    made = pool()
    given = [made.take() for _ in range(5)]
    assert [str(each) for each in given] == [f"10.1.0.{number}" for number in range(2, 7)]
    with pytest.raises(ResourceExhausted):
        made.take()
    made.give_back(given[1])
    made.give_back(given[3])
    assert str(made.take()) == "10.1.0.3"
    fresh = pool()
    first = fresh.take()
    fresh.give_back(first)
    assert fresh.take() != first


def test_asked_for_and_reserved_addresses() -> None:
    made = pool(auxiliary_addresses={"printer": "10.1.0.2"}, ip_range="10.1.0.0/30")
    assert str(made.take()) == "10.1.0.3"
    with pytest.raises(ResourceExhausted):
        made.take()
    outside_range = ipaddress.ip_address("10.1.0.6")
    assert made.take(outside_range) == outside_range
    for taken in ("10.1.0.6", "10.1.0.1", "10.1.0.2", "10.1.0.7"):
        with pytest.raises(Conflict, match="Address already in use"):
            made.take(ipaddress.ip_address(taken))


def test_leases_are_all_or_none() -> None:
    leases = ipam.Leases(
        network(IPAMPool(subnet="10.1.0.0/24", gateway="10.1.0.1"), IPAMPool(subnet="fd00::/64", gateway="fd00::1"))
    )
    assert [str(each) for each, _ in leases.take()] == ["10.1.0.2", "fd00::2"]
    with pytest.raises(InvalidArgument):
        leases.take("10.1.0.9", "fd01::9")
    assert [str(each) for each, _ in leases.take("10.1.0.9", "fd00::9")] == ["10.1.0.9", "fd00::9"]
    leases.give_back("10.1.0.9/24")
    assert str(leases.take("10.1.0.9")[0][0]) == "10.1.0.9"
    with pytest.raises(InvalidArgument):
        leases.take("not an address")


def test_mac_and_link_local_addresses() -> None:
    mac = ipam.mac_for(ipaddress.ip_address("10.88.0.2"))
    assert mac == "02:42:0a:58:00:02"
    assert str(ipam.link_local(mac)) == "fe80::42:aff:fe58:2"
    assert ipam.check_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"
    for wrong in ("", "02:42", "zz:42:ac:11:00:02", "01:42:ac:11:00:02", "00:00:00:00:00:00", "02:42:ac:11:00:02\n"):
        with pytest.raises(InvalidArgument):
            ipam.check_mac(wrong)

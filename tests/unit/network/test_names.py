"""Whose names are whose."""

from __future__ import annotations

import ipaddress

from bastide.network.names import Directory, Place, Resident, ordered, reverse_address


def place(network: str, address: str, *names: str) -> Place:
    return Place(
        network=network, network_name=f"{network}-net", addresses=(ipaddress.ip_address(address),), names=names
    )


def directory() -> Directory:
    made = Directory()
    made.put(Resident(container="web", places=(place("a", "10.0.0.2", "web", "www"),)))
    made.put(
        Resident(container="db", places=(place("b", "10.1.0.2", "db"), place("a", "10.0.0.3", "db", "google.com")))
    )
    made.put(Resident(container="spy", places=(place("b", "10.1.0.9", "spy", "db"),), links={"store": "db"}))
    return made


def found(made: Directory, source: tuple[str, str], name: str) -> set[str] | None:
    asker = made.asker(source[0], ipaddress.ip_address(source[1]))
    answer = made.find(asker, source[0], name)
    return None if answer is None else {str(each) for each in answer}


def test_names_aliases_and_full_names() -> None:
    made, web = directory(), ("a", "10.0.0.2")
    assert found(made, web, "DB.") == {"10.0.0.3"}
    assert found(made, web, "db.a-net") == {"10.0.0.3"}
    assert found(made, web, "www") == {"10.0.0.2"}
    assert found(made, web, "db.b-net") is None
    assert found(made, web, "nobody") is None


def test_a_name_counts_on_its_own_network_only() -> None:
    made = directory()
    assert found(made, ("a", "10.0.0.2"), "google.com") == {"10.0.0.3"}
    assert found(made, ("b", "10.1.0.9"), "google.com") is None
    assert found(made, ("b", "10.1.0.9"), "web") is None
    # On two networks: names of both, in the order of its places.
    assert found(made, ("b", "10.1.0.2"), "web") == {"10.0.0.2"}
    assert found(made, ("b", "10.1.0.2"), "db") == {"10.1.0.2", "10.1.0.9"}


def test_links_are_for_one_container_alone() -> None:
    made = directory()
    assert found(made, ("b", "10.1.0.9"), "store") == {"10.1.0.2"}
    assert found(made, ("a", "10.0.0.2"), "store") is None


def test_somebody_unknown_gets_the_network_it_asks_on() -> None:
    assert found(directory(), ("a", "10.0.0.1"), "db") == {"10.0.0.3"}


def test_what_is_gone_is_gone() -> None:
    made = directory()
    made.discard("db")
    made.discard("db")
    assert found(made, ("a", "10.0.0.2"), "db") is None
    assert found(made, ("b", "10.1.0.9"), "db") == {"10.1.0.9"}
    made.put(Resident(container="web", places=(place("a", "10.0.0.2", "renamed"),)))
    assert found(made, ("a", "10.0.0.2"), "web") is None
    assert found(made, ("a", "10.0.0.2"), "renamed") == {"10.0.0.2"}


def test_reverse() -> None:
    made = directory()
    web = made.asker("a", ipaddress.ip_address("10.0.0.2"))
    assert made.name_of(web, "a", ipaddress.ip_address("10.0.0.3")) == "db.a-net"
    assert made.name_of(web, "a", ipaddress.ip_address("10.1.0.2")) is None
    assert reverse_address("3.0.0.10.in-addr.arpa.") == ipaddress.ip_address("10.0.0.3")
    six = ipaddress.ip_address("fd00::7")
    assert reverse_address(six.reverse_pointer) == six
    for wrong in ("0.10.in-addr.arpa", "x.0.0.10.in-addr.arpa", "300.0.0.10.in-addr.arpa", "z.ip6.arpa", "db"):
        assert reverse_address(wrong) is None


def test_ordered() -> None:
    assert ordered(["b", "", "a", "b"]) == ("b", "a")

"""Addresses, names and walls of user networks: what `docker network create` promises."""

from __future__ import annotations

import json
import re

import pytest
from tests.clients.conftest import Docker

SLEEP = ("busybox", "sleep", "1000")


def shown(docker: Docker, name: str) -> dict[str, object]:
    (found,) = json.loads(docker.ok("network", "inspect", name))
    return found


def address(docker: Docker, container: str, network: str, field: str = "IPAddress") -> str:
    return docker.field(container, f'{{{{(index .NetworkSettings.Networks "{network}").{field}}}}}')


def test_a_range_a_gateway_and_what_is_kept_free(docker: Docker) -> None:
    flags = ("--subnet", "10.111.0.0/16", "--ip-range", "10.111.5.0/29", "--gateway", "10.111.5.1")
    docker("network", "create", *flags, "--aux-address", "router=10.111.5.2", "--aux-address", "b=10.111.5.3", "net")
    for name in ("one", "two"):
        docker("run", "-d", "--name", name, "--network", "net", *SLEEP)
    # The first of the range, less the gateway and the two that are kept free; the range's own address counts.
    assert {address(docker, name, "net") for name in ("one", "two")} <= {f"10.111.5.{last}" for last in (0, 4, 5)}
    assert address(docker, "one", "net", "Gateway") == "10.111.5.1"
    assert docker.ok("exec", "one", "ip", "route").splitlines()[0].startswith("default via 10.111.5.1")
    assert shown(docker, "net")["IPAM"] == {
        "Driver": "default",
        "Options": {},
        "Config": [
            {
                "Subnet": "10.111.0.0/16",
                "IPRange": "10.111.5.0/29",
                "Gateway": "10.111.5.1",
                "AuxiliaryAddresses": {"router": "10.111.5.2", "b": "10.111.5.3"},
            }
        ],
    }


def test_a_range_that_is_used_up(docker: Docker) -> None:
    docker("network", "create", "--subnet", "10.111.0.0/16", "--ip-range", "10.111.5.0/30", "net")
    for name in ("one", "two", "three"):
        docker("run", "-d", "--name", name, "--network", "net", *SLEEP)
    # The first of the range is the gateway.
    assert address(docker, "one", "net", "Gateway") == "10.111.5.0"
    assert re.search("no available (IPv4 )?addresses", docker("run", "-d", "--network", "net", *SLEEP, code=125).err)


@pytest.mark.beyond
def test_several_subnets_of_one_family(docker: Docker) -> None:
    """Docker's bridge has one of each family; here a container has an address of the first that has one left."""
    docker("network", "create", "--subnet", "10.111.0.0/29", "--subnet", "10.112.0.0/29", "net")
    for number in range(7):
        docker("run", "-d", "--name", f"box{number}", "--network", "net", *SLEEP)
    docker("exec", "box6", "ping", "-c", "1", "-W", "5", "box0")
    assert {address(docker, f"box{number}", "net")[:6] for number in range(7)} == {"10.111", "10.112"}


def test_both_families(docker: Docker) -> None:
    subnets = ("--subnet", "10.111.0.0/24", "--subnet", "fd00:bad:cafe::/64", "--gateway", "fd00:bad:cafe::1")
    docker("network", "create", "--ipv6", *subnets, "net")
    fixed = ("--ip", "10.111.0.9", "--ip6", "fd00:bad:cafe::9")
    docker("run", "-d", "--name", "one", "--network", "net", *fixed, *SLEEP)
    assert "fd00:bad:cafe::9/64" in docker.ok("exec", "one", "ip", "-6", "address", "show", "eth0")
    assert address(docker, "one", "net", "GlobalIPv6Address") == "fd00:bad:cafe::9"
    assert address(docker, "one", "net", "GlobalIPv6PrefixLen") == "64"
    assert "default via fd00:bad:cafe::1" in docker.ok("exec", "one", "ip", "-6", "route")
    assert shown(docker, "net")["EnableIPv6"] is True


def test_an_internal_network_has_no_way_out(docker: Docker) -> None:
    docker("network", "create", "--internal", "--subnet", "10.111.0.0/24", "net")
    docker("run", "-d", "--name", "one", "--network", "net", *SLEEP)
    assert "default" not in docker.ok("exec", "one", "ip", "route")
    assert shown(docker, "net")["Internal"] is True


def test_attachable_is_remembered(docker: Docker) -> None:
    docker("network", "create", "--attachable", "net")
    assert shown(docker, "net")["Attachable"] is True


def test_names_aliases_and_short_ids(docker: Docker) -> None:
    docker("network", "create", "net")
    docker("network", "create", "other")
    made = docker.ok("run", "-d", "--name", "server", "--network", "net", "--network-alias", "nick", *SLEEP)
    docker("run", "-d", "--name", "peer", "--network", "net", "--link", "server:linked", *SLEEP)
    docker("run", "-d", "--name", "stranger", "--network", "other", *SLEEP)
    for name in ("server", "nick", made[:12], "linked", "server.net"):
        docker("exec", "peer", "ping", "-c", "1", "-W", "5", name)
    assert docker("exec", "stranger", "ping", "-c", "1", "-W", "1", "server", code=1).code == 1
    docker("network", "connect", "--alias", "later", "other", "server")
    docker("exec", "stranger", "ping", "-c", "1", "-W", "5", "later")
    assert docker("exec", "stranger", "ping", "-c", "1", "-W", "1", "nick", code=1).code == 1


@pytest.mark.beyond
def test_macvlan(docker: Docker) -> None:
    docker("network", "create", "-d", "macvlan", "--subnet", "10.111.0.0/24", "net")
    docker("run", "-d", "--name", "one", "--network", "net", "--ip", "10.111.0.5", *SLEEP)
    docker("run", "-d", "--name", "two", "--network", "net", *SLEEP)
    docker("exec", "two", "ping", "-c", "1", "-W", "5", "10.111.0.5")
    assert shown(docker, "net")["Driver"] == "macvlan"


@pytest.mark.beyond
def test_without_icc_neighbours_do_not_speak(docker: Docker) -> None:
    """The dockerd that the cases are compared with runs without a firewall."""
    docker("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "net")
    docker("run", "-d", "--name", "one", "--network", "net", *SLEEP)
    docker("run", "-d", "--name", "two", "--network", "net", *SLEEP)
    assert docker("exec", "two", "ping", "-c", "1", "-W", "1", address(docker, "one", "net"), code=1).code == 1


def test_a_network_that_is_used_stays(docker: Docker) -> None:
    docker("network", "create", "net")
    docker("run", "-d", "--name", "one", "--network", "net", *SLEEP)
    assert "has active endpoints" in docker("network", "rm", "net", code=1).err
    docker("network", "disconnect", "-f", "net", "one")
    docker("network", "rm", "net")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gateway", "10.111.0.1"], "(?i)subnet"),
        (["--subnet", "10.111.0.0/24", "--gateway", "10.112.0.1"], "no matching subnet for gateway 10.112.0.1"),
        (["--subnet", "10.111.0.0/24", "--ip-range", "10.112.0.0/28"], "no matching subnet for range 10.112.0.0/28"),
        (["--subnet", "10.111.0.0/24", "--aux-address", "a=10.112.0.1"], "no matching subnet for aux-address"),
        (["--subnet", "10.111.0.300/24"], "(?i)invalid"),
        (["-d", "nothing"], "(?i)plugin|driver"),
        (["--ipam-driver", "nothing"], "nothing"),
    ],
    ids=str,
)
def test_what_cannot_be(docker: Docker, flags: list[str], words: str) -> None:
    assert re.search(words, docker("network", "create", *flags, "net", code=1).err)
    assert docker.ok("network", "ls", "-q", "--filter", "name=net") == ""


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["label=kind"], {"two"}),
        (["label=kind=a"], {"two"}),
        (["label=kind=b"], set()),
        (["name=on"], {"one", "none"}),
        (["scope=local", "type=custom"], {"one", "two"}),
        (["scope=swarm"], set()),
        pytest.param(["dangling=true"], {"two"}, marks=pytest.mark.beyond),
        (["driver=null"], {"none"}),
        (["type=builtin"], {"bridge", "host", "none"}),
    ],
    ids=str,
)
def test_filters(docker: Docker, flags: list[str], names: set[str]) -> None:
    docker("network", "create", "one")
    docker("network", "create", "--label", "kind=a", "two")
    docker("run", "-d", "--network", "one", *SLEEP)
    chosen = [word for flag in flags for word in ("--filter", flag)]
    assert set(docker.ok("network", "ls", *chosen, "--format", "{{.Name}}").split()) == names


def test_prune_by_label(docker: Docker) -> None:
    docker("network", "create", "--label", "keep=yes", "kept")
    docker("network", "create", "loose")
    assert "kept" not in docker.ok("network", "prune", "-f", "--filter", "label!=keep=yes")
    assert docker.ok("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}") == "kept"

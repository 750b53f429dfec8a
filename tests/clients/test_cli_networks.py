"""The docker command line on networks and volumes."""

from __future__ import annotations

import json
import re

import pytest
from tests.clients.conftest import Docker


def test_life_of_a_network(docker: Docker) -> None:
    made = docker.ok("network", "create", "net")
    assert re.fullmatch(r"[0-9a-f]{64}", made)
    (shown,) = json.loads(docker.ok("network", "inspect", "net"))
    assert (shown["Name"], shown["Id"], shown["Driver"], shown["Scope"]) == ("net", made, "bridge", "local")
    assert shown["IPAM"]["Config"][0]["Subnet"]
    assert "already exists" in docker("network", "create", "net", code=1).err
    assert docker.ok("network", "rm", made[:12]) == made[:12]
    assert re.search("not found|No such network", docker("network", "rm", "net", code=1).err)


def test_predefined_networks(docker: Docker) -> None:
    names = docker.ok("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines()
    assert {"bridge bridge local", "host host local", "none null local"} <= set(names)
    for name in ("host", "none"):
        assert re.search("(?i)pre-defined", docker("network", "rm", name, code=1).err)


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--subnet", "10.110.1.0/24"], "{{(index .IPAM.Config 0).Subnet}}", "10.110.1.0/24"),
        (["--subnet", "10.110.1.0/24", "--gateway", "10.110.1.9"], "{{(index .IPAM.Config 0).Gateway}}", "10.110.1.9"),
        (
            ["--subnet", "10.110.1.0/24", "--ip-range", "10.110.1.128/25"],
            "{{(index .IPAM.Config 0).IPRange}}",
            "10.110.1.128/25",
        ),
        (["--internal"], "{{.Internal}}", "true"),
        (["--attachable"], "{{.Attachable}}", "true"),
        (["--label", "a=b"], '{{index .Labels "a"}}', "b"),
        (["-o", "com.docker.network.driver.mtu=1400"], '{{index .Options "com.docker.network.driver.mtu"}}', "1400"),
    ],
    ids=str,
)
def test_network_options(docker: Docker, flags: list[str], field: str, value: str) -> None:
    docker("network", "create", *flags, "net")
    assert docker.field("net", field, "network") == value


@pytest.mark.parametrize(
    "flags",
    [
        ["--subnet", "nonsense"],
        ["--subnet", "10.110.1.0/24", "--gateway", "10.99.99.1"],
        ["--driver", "no-such-driver"],
    ],
    ids=str,
)
def test_bad_networks(docker: Docker, flags: list[str]) -> None:
    assert docker("network", "create", *flags, "net", code=1).err


def test_overlapping_subnets(docker: Docker) -> None:
    docker("network", "create", "--subnet", "10.110.1.0/24", "one")
    assert re.search("(?i)overlap", docker("network", "create", "--subnet", "10.110.1.0/25", "two", code=1).err)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--filter", "name=^one$"], {"one"}),
        (["--filter", "label=kind=a"], {"one"}),
        (["--filter", "type=custom"], {"one", "two"}),
        (["--filter", "driver=bridge", "--filter", "type=custom"], {"one", "two"}),
        (["--filter", "scope=swarm"], set()),
    ],
    ids=str,
)
def test_network_filters(docker: Docker, flags: list[str], names: set[str]) -> None:
    docker("network", "create", "--label", "kind=a", "one")
    docker("network", "create", "two")
    docker("run", "-d", "--network", "one", "busybox", "sleep", "1000")
    assert set(docker.ok("network", "ls", *flags, "--format", "{{.Name}}").split()) == names


def test_names_are_found(docker: Docker) -> None:
    docker("network", "create", "net")
    docker("run", "-d", "--network", "net", "--name", "server", "--network-alias", "other", "busybox", "sleep", "1000")
    short = docker.field("server", "{{.Id}}")[:12]
    address = docker.field("server", "{{.NetworkSettings.Networks.net.IPAddress}}")
    for name in ("server", "other", short):
        found = docker.ok("run", "--rm", "--network", "net", "busybox", "ping", "-c", "1", "-W", "5", name)
        assert f"({address})" in found


def test_a_static_address(docker: Docker) -> None:
    docker("network", "create", "--subnet", "10.110.2.0/24", "net")
    docker("run", "-d", "--network", "net", "--ip", "10.110.2.77", "--name", "fixed", "busybox", "sleep", "1000")
    assert "10.110.2.77/24" in docker.ok("exec", "fixed", "ip", "-4", "addr", "show", "eth0")
    done = docker("run", "--rm", "--network", "net", "--ip", "10.110.2.77", "busybox", "true", code=125)
    assert re.search("(?i)already in use", done.err)


def test_a_link_local_address(docker: Docker) -> None:
    docker("network", "create", "net")
    options = ("--network", "net", "--link-local-ip", "169.254.9.9")
    docker("run", "-d", *options, "--name", "near", "busybox", "sleep", "1000")
    assert "169.254.9.9/16" in docker.ok("exec", "near", "ip", "-4", "addr", "show", "eth0")
    assert docker.field("near", "{{json .NetworkSettings.Networks.net.IPAMConfig.LinkLocalIPs}}") == '["169.254.9.9"]'


def interfaces(docker: Docker, name: str) -> list[str]:
    """The interfaces that have an IPv4 address."""
    return [line.split()[1] for line in docker("exec", name, "ip", "-4", "-o", "address").lines]


def test_connect_and_disconnect(docker: Docker, sleeper: str) -> None:
    docker("network", "create", "net")
    docker("network", "connect", "--alias", "nick", "net", sleeper)
    assert interfaces(docker, sleeper) == ["lo", "eth0", "eth1"]
    (shown,) = json.loads(docker.ok("network", "inspect", "net"))
    assert [one["Name"] for one in shown["Containers"].values()] == [sleeper]
    assert re.search("(?i)already exists|already connected", docker("network", "connect", "net", sleeper, code=1).err)
    assert re.search("(?i)active endpoints", docker("network", "rm", "net", code=1).err)
    docker("network", "disconnect", "net", sleeper)
    assert interfaces(docker, sleeper) == ["lo", "eth0"]
    assert re.search("is not connected", docker("network", "disconnect", "net", sleeper, code=1).err)


def test_networks_are_kept_while_stopped(docker: Docker) -> None:
    docker("network", "create", "net")
    docker("create", "--name", "one", "busybox", "ip", "-4", "-o", "address")
    docker("network", "connect", "net", "one")
    assert [line.split()[1] for line in docker("start", "-a", "one").lines] == ["lo", "eth0", "eth1"]


def test_network_prune(docker: Docker) -> None:
    docker("network", "create", "unused")
    docker("network", "create", "used")
    docker("run", "-d", "--network", "used", "busybox", "sleep", "1000")
    done = docker.ok("network", "prune", "-f")
    assert "unused" in done
    assert "\nused" not in done


# -- volumes ----------------------------------------------------------------------------------


def test_life_of_a_volume(docker: Docker) -> None:
    assert docker.ok("volume", "create", "--label", "a=b", "data") == "data"
    assert docker.ok("volume", "create", "data") == "data"
    (shown,) = json.loads(docker.ok("volume", "inspect", "data"))
    assert (shown["Name"], shown["Driver"], shown["Scope"]) == ("data", "local", "local")
    assert shown["Labels"] == {"a": "b"}
    assert re.match(r"\d{4}-", shown["CreatedAt"])
    assert docker.ok("volume", "rm", "data") == "data"
    assert re.search("(?i)no such volume", docker("volume", "rm", "data", code=1).err)
    assert re.search("(?i)no such volume", docker("volume", "inspect", "data", code=1).err)


def test_an_anonymous_volume(docker: Docker) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", docker.ok("volume", "create"))


def test_a_used_volume_stays(docker: Docker) -> None:
    made = docker.ok("create", "-v", "data:/data", "busybox")
    done = docker("volume", "rm", "data", code=1)
    assert f"volume is in use - [{made}]" in done.err


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "-x"])
def test_bad_names(docker: Docker, name: str) -> None:
    assert docker("volume", "create", "--", name, code=1).err


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], {"used", "loose"}),
        (["--filter", "dangling=true"], {"loose"}),
        (["--filter", "dangling=false"], {"used"}),
        (["--filter", "name=loo"], {"loose"}),
        (["--filter", "label=kind"], {"loose"}),
        (["--filter", "driver=local"], {"used", "loose"}),
    ],
    ids=str,
)
def test_volume_filters(docker: Docker, flags: list[str], names: set[str]) -> None:
    docker("volume", "create", "--label", "kind=a", "loose")
    docker("create", "-v", "used:/data", "busybox")
    assert set(docker.ok("volume", "ls", *flags, "-q").split()) == names


def test_prune_spares_named_volumes(docker: Docker) -> None:
    named, anonymous = docker.ok("volume", "create", "named"), docker.ok("volume", "create")
    assert anonymous in docker.ok("volume", "prune", "-f")
    assert docker.ok("volume", "ls", "-q") == named
    assert named in docker.ok("volume", "prune", "-f", "--all")


def test_a_volume_in_memory(docker: Docker) -> None:
    docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "mem")
    shown = docker.ok("run", "--rm", "-v", "mem:/mem", "busybox", "df", "-k", "/mem")
    assert re.search(r"\s1024\s", shown)


def test_a_volume_that_is_a_bind(docker: Docker, tmp_path: object) -> None:
    with open(f"{tmp_path}/f", "w") as file:
        file.write("bound")
    docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "bound")
    assert docker.ok("run", "--rm", "-v", "bound:/b", "busybox", "cat", "/b/f") == "bound"


def test_a_part_of_a_volume(docker: Docker) -> None:
    docker("run", "--rm", "-v", "whole:/w", "busybox", "sh", "-c", "mkdir /w/sub; echo part > /w/sub/f")
    mount = "type=volume,src=whole,dst=/p,volume-subpath=sub"
    assert docker.ok("run", "--rm", "--mount", mount, "busybox", "cat", "/p/f") == "part"
    mount = "type=volume,src=whole,dst=/p,volume-subpath=../.."
    assert docker("run", "--rm", "--mount", mount, "busybox", "ls", "/p", code=125).err

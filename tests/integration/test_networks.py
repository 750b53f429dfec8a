"""Networks behind both walls, with the real daemon: names, ports, addresses, walls between networks, crashes."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from tests.living import Daemon, links

SERVE = ("busybox", "httpd", "-f", "-h", "/var/www")
CHANGING = ["container", "vm"]
"""Walls whose networks can change while they run."""
GVISOR = ["gvisor"] if shutil.which("runsc") else []
WALLS = [*CHANGING, *GVISOR]
HELLO = "hello from the image\n"


@pytest.fixture(params=WALLS)
def isolation(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[str]:
    """The wall; what a test leaves behind is removed."""
    yield request.param
    daemon.clear()
    for name in daemon.ok("network", "ls", "-q", "--filter", "type=custom").split():
        daemon.ok("network", "rm", name)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def fetch(port: int, host: str = "127.0.0.1") -> str:
    """What an HTTP server says, "" when nobody does."""
    try:
        with socket.create_connection((host, port), timeout=3) as channel:
            channel.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := channel.recv(65536):
                answer += piece
    except OSError:
        return ""
    return answer.decode().partition("\r\n\r\n")[2]


def run(daemon: Daemon, isolation: str, *args: str, check: bool = True) -> str:
    done = daemon.cli("run", "--isolation", isolation, *args, check=check, timeout=180)
    return done.stdout


def inside(daemon: Daemon, isolation: str, network: str, script: str, *options: str) -> str:
    """What a shell in a fresh container on a network prints."""
    return run(daemon, isolation, "--rm", "--network", network, *options, "busybox", "sh", "-c", script)


def test_names_of_every_kind(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "meadow")
    options = ("-d", "--name", "server", "--hostname", "tower", "--network", "meadow", "--network-alias", "www")
    short = run(daemon, isolation, *options, *SERVE).strip()[:12]
    address = daemon.inspect("server")["NetworkSettings"]["Networks"]["meadow"]["IPAddress"]
    names = f"server www tower {short} server.meadow WWW.meadow."
    said = inside(daemon, isolation, "meadow", f"for n in {names}; do wget -qO- http://$n/; done")
    assert said == HELLO * 6
    assert "name = server.meadow" in inside(daemon, isolation, "meadow", f"nslookup {address}")
    assert address in inside(daemon, isolation, "meadow", "cat /etc/hosts; nslookup server")


def test_names_on_the_default_network_and_nowhere_else(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "meadow")
    run(daemon, isolation, "-d", "--name", "server", *SERVE)
    assert inside(daemon, isolation, "bridge", "wget -qO- http://server/") == HELLO
    done = daemon.cli("run", "--rm", "--isolation", isolation, "--network", "meadow", "busybox", "nslookup", "server")
    assert done.returncode != 0


def test_static_addresses_and_a_taken_one(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "--subnet", "10.101.77.0/24", "--gateway", "10.101.77.254", "meadow")
    fixed = ("--network", "meadow", "--ip", "10.101.77.9", "--mac-address", "02:11:22:33:44:55")
    script = "ip address; ip route"
    said = run(daemon, isolation, "--rm", *fixed, "busybox", "sh", "-c", script)
    assert "10.101.77.9/24" in said
    assert "02:11:22:33:44:55" in said
    assert "default via 10.101.77.254" in said
    run(daemon, isolation, "-d", "--name", "first", *fixed, "busybox", "sleep", "1000")
    done = daemon.cli("run", "--isolation", isolation, "--name", "second", *fixed, "busybox", "true")
    assert done.returncode == 125
    assert "Address already in use" in done.stderr


def test_published_ports(daemon: Daemon, isolation: str) -> None:
    run(daemon, isolation, "-d", "--name", "server", "-p", "18181:80", "-p", "127.0.0.1::80", *SERVE)
    bindings = daemon.inspect("server")["NetworkSettings"]["Ports"]["80/tcp"]
    assert {each["HostIp"] for each in bindings} == {"0.0.0.0", "::", "127.0.0.1"}
    until(lambda: fetch(18181) == HELLO)
    assert fetch(18181, "::1") == HELLO
    assert fetch(int(next(each["HostPort"] for each in bindings if each["HostIp"] == "127.0.0.1"))) == HELLO
    done = daemon.cli("run", "--isolation", isolation, "--name", "late", "-p", "18181:80", *SERVE)
    assert done.returncode == 125
    assert "Bind for 0.0.0.0:18181 failed: port is already allocated" in done.stderr
    daemon.ok("rm", "-f", "server")
    assert fetch(18181) == ""
    run(daemon, isolation, "-d", "--name", "again", "-p", "18181:80", *SERVE)
    until(lambda: fetch(18181) == HELLO)


def test_walls_between_networks_and_the_host(daemon: Daemon, isolation: str) -> None:
    for name, flags in (("meadow", ()), ("alley", ()), ("cellar", ("--internal",))):
        daemon.ok("network", "create", *flags, name)
    with socket.create_server(("127.0.0.1", 0)) as private:
        host_port = private.getsockname()[1]
        run(daemon, isolation, "-d", "--name", "server", "--network", "alley", *SERVE)
        run(daemon, isolation, "-d", "--name", "vault", "--network", "cellar", *SERVE)
        address = daemon.inspect("server")["NetworkSettings"]["Networks"]["alley"]["IPAddress"]
        gateway = json.loads(daemon.ok("network", "inspect", "meadow"))[0]["IPAM"]["Config"][0]["Gateway"]
        reach = "nc -w 2 {} </dev/null >/dev/null 2>&1 && echo {} open"
        targets = (
            f"{address} 80",
            f"{gateway} {host_port}",
            f"127.0.0.1 {host_port}",
            "169.254.169.254 80",
            "vault 80",
        )
        script = ";".join(reach.format(target, target) for target in targets)
        assert inside(daemon, isolation, "meadow", f"{script}; true") == ""
    assert fetch(80, address) == HELLO
    until(lambda: inside(daemon, isolation, "cellar", "wget -qO- http://vault/; true") == HELLO)
    assert inside(daemon, isolation, "cellar", f"{reach.format(f'{address} 80', 'server')}; true") == ""


def test_nothing_is_left_when_containers_are_gone(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "meadow")
    bridge = "br-" + json.loads(daemon.ok("network", "inspect", "meadow"))[0]["Id"][:12]
    before = set(links())
    for _ in range(3):
        run(daemon, isolation, "--rm", "--network", "meadow", "-p", "18183:80", "busybox", "true")
    until(lambda: not ports_of(bridge))
    assert {name for name in set(links()) - before if name.startswith("br-")} == set()
    assert fetch(18183) == ""
    daemon.ok("network", "rm", "meadow")
    assert bridge not in links()


def ports_of(bridge: str) -> list[str]:
    shown = subprocess.run(["ip", "-o", "link", "show", "master", bridge], capture_output=True, text=True, check=True)
    return re.findall(r"^\d+: (\S+?)[@:]", shown.stdout, re.MULTILINE)


def test_ports_and_names_survive_the_daemon(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "meadow")
    run(daemon, isolation, "-d", "--name", "server", "--network", "meadow", "-p", "18184:80", *SERVE)
    until(lambda: fetch(18184) == HELLO)
    daemon.stop(9)
    try:
        assert fetch(18184) == HELLO
    finally:
        daemon.start()
    assert fetch(18184) == HELLO
    assert fetch(18184, "::1") == HELLO
    assert inside(daemon, isolation, "meadow", "wget -qO- http://server/") == HELLO
    done = daemon.cli("run", "--name", "late", "-p", "18184:80", *SERVE)
    assert "port is already allocated" in done.stderr
    daemon.ok("rm", "-f", "server")
    assert fetch(18184) == ""


def test_several_networks(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "meadow")
    daemon.ok("network", "create", "alley")
    daemon.ok("create", "--isolation", isolation, "--name", "both", "--network", "meadow", *SERVE)
    daemon.ok("network", "connect", "--alias", "shop", "alley", "both")
    daemon.ok("start", "both")
    assert set(daemon.inspect("both")["NetworkSettings"]["Networks"]) == {"meadow", "alley"}
    assert inside(daemon, isolation, "meadow", "wget -qO- http://both/") == HELLO
    assert inside(daemon, isolation, "alley", "wget -qO- http://shop/") == HELLO


@pytest.mark.parametrize("isolation", CHANGING, indirect=True)
def test_connecting_while_it_runs(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "meadow")
    run(daemon, isolation, "-d", "--name", "server", *SERVE)
    daemon.ok("network", "connect", "--alias", "www", "meadow", "server")
    own = daemon.inspect("server")["NetworkSettings"]["Networks"]["meadow"]
    assert inside(daemon, isolation, "meadow", "wget -qO- http://server/; wget -qO- http://www/") == HELLO * 2
    shown = daemon.ok("exec", "server", "ip", "address", "show", "eth1")
    assert own["IPAddress"] in shown
    assert own["MacAddress"] in shown
    assert own["IPAddress"] in daemon.ok("exec", "server", "cat", "/etc/hosts")
    daemon.ok("network", "disconnect", "bridge", "server")
    assert "eth0" not in daemon.ok("exec", "server", "ip", "address")
    assert inside(daemon, isolation, "meadow", "wget -qO- http://server/") == HELLO
    daemon.ok("rename", "server", "shop")
    assert inside(daemon, isolation, "meadow", "wget -qO- http://shop/") == HELLO


@pytest.mark.parametrize("isolation", GVISOR, indirect=True)
def test_what_gvisors_interface_cannot_be_told(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "one")
    name = "com.docker.network.endpoint.sysctls"
    network = ("--network", f"name=one,driver-opt={name}=net.ipv4.conf.IFNAME.log_martians=1")
    done = daemon.cli("run", "--name", "told", "--isolation", isolation, *network, "busybox", "true")
    assert done.returncode == 125
    assert f"isolation gvisor does not offer {name}: leave it out or use --isolation container" in done.stderr


@pytest.mark.parametrize("isolation", CHANGING, indirect=True)
def test_what_an_interface_is_told(daemon: Daemon, isolation: str) -> None:
    """Link-local addresses and kernel parameters, at the start and while it runs."""
    option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.{}=1".format
    for name in ("one", "two"):
        daemon.ok("network", "create", name)
    network = ("--network", f"name=one,driver-opt={option('log_martians')},link-local-ip=169.254.7.7")
    daemon.ok("run", "-d", "--isolation", isolation, "--name", "told", *network, "busybox", "sleep", "1000")
    daemon.ok("network", "connect", "--driver-opt", option("log_martians"), "--link-local-ip", "fe80::8", "two", "told")
    for device, address in (("eth0", "169.254.7.7/16"), ("eth1", "fe80::8/64")):
        script = f"cat /proc/sys/net/ipv4/conf/{device}/log_martians; ip address show {device}"
        said = daemon.ok("exec", "told", "sh", "-c", script)
        assert said.splitlines()[0] == "1"
        assert address in said
    shown = daemon.inspect("told")["NetworkSettings"]["Networks"]
    assert shown["one"]["IPAMConfig"]["LinkLocalIPs"] == ["169.254.7.7"]
    assert shown["two"]["DriverOpts"] == dict([option("log_martians").split("=", 1)])
    # What its kernel does not have: one line, and nothing is left of it.
    daemon.ok("network", "create", "three")
    for words in (
        (
            "run",
            "--rm",
            "--isolation",
            isolation,
            "--network",
            f"name=three,driver-opt={option('nosuch')}",
            "busybox",
            "true",
        ),
        ("network", "connect", "--driver-opt", option("nosuch"), "three", "told"),
    ):
        done = daemon.cli(*words)
        assert done.returncode
        assert "nosuch" in done.stderr.splitlines()[0]
    assert daemon.ok("ps", "-aq", "--filter", "network=three") == ""
    daemon.ok("network", "rm", "three")


@pytest.mark.parametrize("isolation", CHANGING, indirect=True)
def test_connecting_again_and_again_also_under_another_daemon(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "--ipv6", "meadow")
    run(daemon, isolation, "-d", "--name", "server", *SERVE)
    for number in range(5):
        daemon.ok("network", "connect", "meadow", "server")
        own = daemon.inspect("server")["NetworkSettings"]["Networks"]["meadow"]
        assert own["GlobalIPv6Address"] in daemon.ok("exec", "server", "ip", "address", "show", "eth1")
        assert inside(daemon, isolation, "meadow", "wget -qO- http://server/") == HELLO
        if number == 2:
            daemon.stop(9)
            daemon.start()
            assert inside(daemon, isolation, "meadow", "wget -qO- http://server/") == HELLO
        daemon.ok("network", "disconnect", "meadow", "server")
        assert "eth1" not in daemon.ok("exec", "server", "ip", "address")
    assert inside(daemon, isolation, "bridge", "wget -qO- http://server/") == HELLO


@pytest.mark.parametrize("isolation", GVISOR, indirect=True)
def test_gvisor_takes_other_networks_at_its_next_start(daemon: Daemon, isolation: str) -> None:
    """Its own stack took addresses over when it started: changes are refused by name, nothing is left of them."""
    daemon.ok("network", "create", "meadow")
    bridge = "br-" + json.loads(daemon.ok("network", "inspect", "meadow"))[0]["Id"][:12]
    run(daemon, isolation, "-d", "--name", "server", *SERVE)
    for verb, network in (("connect", "meadow"), ("disconnect", "bridge")):
        done = daemon.cli("network", verb, network, "server")
        assert done.returncode == 1
        assert "isolation gvisor cannot change networks while running: stop it first" in done.stderr
        assert done.stderr.count("\n") == 1
    assert ports_of(bridge) == []
    for wall in ("container", "gvisor"):
        done = daemon.cli("run", "--rm", "--isolation", wall, "--network", "container:server", "busybox", "true")
        assert done.returncode == 125
        assert "isolation gvisor" in done.stderr
    daemon.ok("stop", "-t", "0", "server")
    daemon.ok("network", "connect", "meadow", "server")
    daemon.ok("network", "disconnect", "bridge", "server")
    daemon.ok("start", "server")
    assert inside(daemon, isolation, "meadow", "wget -qO- http://server/") == HELLO


def test_the_default_route_goes_by_a_network_that_has_one(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "--internal", "cellar")
    daemon.ok("network", "create", "--subnet", "10.101.78.0/24", "meadow")
    daemon.ok("create", "--isolation", isolation, "--name", "both", "--network", "cellar", "busybox", "ip", "route")
    daemon.ok("network", "connect", "meadow", "both")
    assert "default via 10.101.78.1 dev eth1" in daemon.ok("start", "-a", "both")


def test_connecting_to_more_networks_than_a_vm_has_room_for(daemon: Daemon) -> None:
    for number in range(3):
        daemon.ok("network", "create", f"n{number}")
    run(daemon, "vm", "-d", "--name", "server", *SERVE)
    for number in range(2):
        daemon.ok("network", "connect", f"n{number}", "server")
    done = daemon.cli("network", "connect", "n2", "server")
    assert "at most 2 more networks" in done.stderr
    assert set(daemon.inspect("server")["NetworkSettings"]["Networks"]) == {"bridge", "n0", "n1"}
    daemon.ok("network", "disconnect", "n1", "server")
    daemon.ok("network", "connect", "n2", "server")
    assert inside(daemon, "vm", "n2", "wget -qO- http://server/") == HELLO
    daemon.ok("pause", "server")
    assert "unpause it first" in daemon.cli("network", "disconnect", "n2", "server").stderr
    daemon.ok("unpause", "server")
    daemon.ok("restart", "-t", "0", "server")
    assert inside(daemon, "vm", "n0", "wget -qO- http://server/") == HELLO
    daemon.clear()
    for number in range(3):
        daemon.ok("network", "rm", f"n{number}")


def test_ipv6(daemon: Daemon, isolation: str) -> None:
    daemon.ok("network", "create", "--ipv6", "meadow")
    run(daemon, isolation, "-d", "--name", "server", "--network", "meadow", "-p", "[::1]:18185:80", *SERVE)
    own = daemon.inspect("server")["NetworkSettings"]["Networks"]["meadow"]
    assert own["GlobalIPv6Address"].startswith("fd")
    until(lambda: fetch(18185, "::1") == HELLO)
    assert fetch(80, own["GlobalIPv6Address"]) == HELLO
    script = f"wget -qO- http://[{own['GlobalIPv6Address']}]/"
    assert inside(daemon, isolation, "meadow", script) == HELLO


def test_sharing_a_containers_network(daemon: Daemon) -> None:
    run(daemon, "container", "-d", "--name", "server", *SERVE)
    assert inside(daemon, "container", "container:server", "wget -qO- http://127.0.0.1/") == HELLO
    done = daemon.cli("run", "--rm", "--isolation", "vm", "--network", "container:server", "busybox", "true")
    assert done.returncode == 125
    daemon.clear()

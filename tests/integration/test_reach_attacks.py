"""What a guest reaches and what a client can smuggle in, behind every wall (ATTACKS 24 to 31)."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients.raw import Api
from tests.living import Daemon, links

WALLS = ["container", "vm"]
SERVE = ("busybox", "httpd", "-f", "-p", "80", "-h", "/var/www")
HELLO = "hello from the image"


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon; what a test leaves is removed."""
    yield daemon
    daemon.clear()
    for name in daemon.ok("network", "ls", "-q", "--filter", "type=custom").split():
        daemon.ok("network", "rm", name)


@pytest.fixture
def api(clean: Daemon) -> Api:
    return Api(f"unix://{clean.socket}")


# -- 24: the host and the neighbours -----------------------------------------------------------------


@pytest.mark.parametrize("wall", WALLS)
def test_abstract_sockets_of_the_host(clean: Daemon, wall: str) -> None:
    """CVE-2020-15257: a network namespace of its own has none of them; nor has an exec."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(b"\0bastide-abstract")
        server.listen()
        assert "@bastide-abstract" in Path("/proc/net/unix").read_text()
        look = ("cat", "/proc/net/unix")
        assert "bastide-abstract" not in clean.ok("run", "--rm", "--isolation", wall, "busybox", *look)
        clean.ok("run", "-d", "--isolation", wall, "--name", "looks", "busybox", "sleep", "1000")
        assert "bastide-abstract" not in clean.ok("exec", "looks", *look)
        assert "bastide-abstract" not in clean.ok("exec", "--privileged", "looks", *look)


@pytest.mark.parametrize("wall", WALLS)
def test_nobody_sends_as_somebody_else(clean: Daemon, wall: str) -> None:
    """Another address and another MAC: by one that may set its interface, as root with NET_ADMIN."""
    clean.ok("network", "create", "--subnet", "10.121.77.0/24", "street")
    clean.ok("run", "-d", "--name", "server", "--network", "street", "--ip", "10.121.77.5", *SERVE)
    clean.ok(
        *("run", "-d", "--isolation", wall, "--cap-add", "NET_ADMIN", "--network", "street", "--name", "liar"),
        *("busybox", "sleep", "1000"),
    )
    fetch = "busybox timeout 3 wget -qO- http://10.121.77.5/"
    assert clean.ok("exec", "liar", "sh", "-c", fetch) == HELLO
    other = "ip addr add 10.121.77.99/24 dev eth0 && ip route replace 10.121.77.5/32 dev eth0 src 10.121.77.99"
    clean.ok("exec", "liar", "sh", "-c", other)
    assert clean.cli("exec", "liar", "sh", "-c", fetch).returncode != 0
    clean.ok("exec", "liar", "sh", "-c", "ip route del 10.121.77.5/32; ip addr del 10.121.77.99/24 dev eth0")
    assert clean.ok("exec", "liar", "sh", "-c", fetch) == HELLO
    clean.ok("exec", "liar", "ip", "link", "set", "eth0", "address", "02:99:99:99:99:99")
    assert clean.cli("exec", "liar", "sh", "-c", fetch).returncode != 0


# -- 26: names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wall", WALLS)
def test_a_name_is_for_its_own_network(clean: Daemon, wall: str) -> None:
    clean.ok("network", "create", "--subnet", "10.121.78.0/24", "theirs")
    clean.ok("network", "create", "--subnet", "10.121.79.0/24", "ours")
    clean.ok(
        *("run", "-d", "--network", "theirs", "--network-alias", "bank.example", "--name", "www.bank.example"), *SERVE
    )
    ask = "nslookup bank.example; nslookup www.bank.example; true"
    for network in (("--network", "ours"), ()):
        said = clean.ok("run", "--rm", "--isolation", wall, *network, "busybox", "sh", "-c", ask)
        assert "10.121.78." not in said
    said = clean.ok("run", "--rm", "--isolation", wall, "--network", "theirs", "busybox", "sh", "-c", ask)
    assert "10.121.78." in said


# -- 27: the API -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wall", WALLS)
def test_no_guest_reaches_the_api(clean: Daemon, api: Api, wall: str) -> None:
    """CVE-2025-9074: by the gateway's ports, by the socket's path, by what listens in the namespace."""
    gateway = api.ok("GET", "/networks/bridge")["IPAM"]["Config"][0]["Gateway"]
    look = "; ".join(
        f"nc -w 1 {host} {port} </dev/null >/dev/null 2>&1 && echo {host} {port}"
        for host in (gateway, "127.0.0.1")
        for port in (2375, 2376)
    )
    script = f"{look}; ls {clean.socket} 2>/dev/null; grep bastide.sock /proc/net/unix; true"
    clean.ok("run", "-d", "--isolation", wall, "--name", "guest", "busybox", "sleep", "1000")
    assert clean.ok("run", "--rm", "--isolation", wall, "busybox", "sh", "-c", script) == ""
    assert clean.ok("exec", "guest", "sh", "-c", script) == ""


# -- 28: another field, no body ------------------------------------------------------------------------------

ELSEWHERE: list[tuple[dict[str, Any], str]] = [
    ({"NetworkingConfig": {"EndpointsConfig": {"host": {}}}}, "network"),
    ({"HostConfig": {"NetworkMode": "host"}}, "--network host"),
    ({"HostConfig": {"Binds": ["/tmp:/m:rshared"]}}, "ropagation"),
    ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/tmp", "Target": "/m",
                                 "BindOptions": {"Propagation": "rshared"}}]}}, "ropagation"),
    ({"HostConfig": {"Devices": [{"PathOnHost": "/dev/null"}]}}, "--device"),
    ({"HostConfig": {"DeviceCgroupRules": ["a *:* rwm"]}}, "--device"),
    ({"HostConfig": {"DeviceRequests": [{"Count": -1}]}}, "DeviceRequests"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "word"), ELSEWHERE, ids=lambda value: str(value)[:50])
def test_what_a_wall_refuses_it_refuses_in_every_field(api: Api, body: dict[str, Any], word: str) -> None:
    host = {"Isolation": "vm", **body.get("HostConfig", {})}
    answer = api("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], **body, "HostConfig": host})
    if answer.status == 201:
        answer = api("POST", f"/containers/{answer.json()['Id']}/start")
    assert answer.status in (400, 501), answer.body
    assert word in answer.json()["message"]


@pytest.mark.parametrize("head", ["Content-Length: 0", "Transfer-Encoding: chunked", ""])
@pytest.mark.parametrize("path", ["/containers/create", "/networks/create", "/containers/none/exec"])
def test_no_body_is_no_request(api: Api, path: str, head: str) -> None:
    """CVE-2024-41110: what is judged and what is done are the same bytes, none included."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *filter(None, [head])]
    body = b"0\r\n\r\n" if "chunked" in head else b""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(api.path)
        channel.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = channel.recv(65536)
    assert answer.split()[1] in (b"400", b"404"), answer
    assert api.ok("GET", "/containers/json?all=1") == []


# -- 30: words that would be more ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["a\nb", "a;b", 'a"; add table x', "../x", "a b", "x" * 40, "-x", "a,b", "a/b", "lo\0x", "$(id)"], ids=repr
)
@pytest.mark.parametrize(
    "field",
    ["com.docker.network.bridge.name", "com.docker.network.driver.mtu",
     "com.docker.network.bridge.host_binding_ipv4", "com.docker.network.container_iface_prefix", "Subnet", "Gateway",
     "IPRange", "parent"],
)  # fmt: skip
def test_words_for_devices_and_rules(clean: Daemon, api: Api, field: str, value: str) -> None:
    before = links()
    body: dict[str, Any] = {"Name": "smuggled", "Driver": "macvlan" if field == "parent" else "bridge"}
    if field in ("Subnet", "Gateway", "IPRange"):
        body["IPAM"] = {"Config": [{"Subnet": "10.121.80.0/24", field: value}]}
    else:
        body["Options"] = {field: value}
    answer = api("POST", "/networks/create", body)
    if answer.status == 201:
        started = api("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"NetworkMode": "smuggled"}})
        assert started.status in (201, 400, 501), started.body
        if started.status == 201:
            assert api("DELETE", f"/containers/{started.json()['Id']}?force=1").status == 204
        assert api("DELETE", "/networks/smuggled").status == 204
    else:
        assert 400 <= answer.status < 500 or answer.status == 501, answer.body
        assert "\n" not in answer.json()["message"]
    assert links() == before
    assert api("GET", "/_ping").status == 200


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("value", ["02:00:00:00:00:01,netdev=x", "02:00:00:00:00:01\nx", "x", "-device"], ids=repr)
def test_words_for_an_interface(api: Api, wall: str, value: str) -> None:
    for body in (
        {"MacAddress": value},
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": value}}}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": value, "HostPort": "38495"}]}}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": value}]}}},
    ):
        host = {"Isolation": wall, **body.get("HostConfig", {})}  # type: ignore[dict-item]
        answer = api("POST", "/containers/create", {"Image": "busybox", **body, "HostConfig": host})
        if answer.status == 201:
            answer = api("POST", f"/containers/{answer.json()['Id']}/start")
        assert answer.status == 400, (body, answer.body)
        assert "\n" not in answer.json()["message"]


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("name", ["a,b", 'c"d', "e=f", "g h", "-device", "i\nj", "k\\n", "l%s"], ids=repr)
def test_words_of_paths_and_commands(api: Api, wall: str, name: str, tmp_path: Path) -> None:
    """They reach the guest as they are, or are refused; they never become an option."""
    source = tmp_path / name
    source.mkdir()
    (source / "mark").write_text("here")
    mount = {"Type": "bind", "Source": str(source), "Target": "/m"}
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", 'printf "%s|%s|%s" "$1" "$V" "$(cat /m/mark)"', "sh", name],
        "Env": [f"V={name}"],
        "Labels": {name: name},
        "HostConfig": {"Isolation": wall, "Mounts": [mount]},
    }
    made = api.ok("POST", "/containers/create", body)["Id"]
    answer = api("POST", f"/containers/{made}/start")
    if answer.status == 204:
        api.ok("POST", f"/containers/{made}/wait")
        said = re.sub(rb"(?s)[\1\2]\0\0\0.{4}", b"", api("GET", f"/containers/{made}/logs?stdout=1").body)
        assert said.decode() == f"{name}|{name}|here"
    else:
        assert "\n" in name
        assert answer.status in (400, 501), answer.body
        assert "\n" not in answer.json()["message"]


# -- 31: secrets ------------------------------------------------------------------------------------------------


def spoken(word: str) -> list[str]:
    """Command lines of all processes that hold a word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in line:
                found.append(entry.name)
    return found


@pytest.mark.parametrize("wall", WALLS)
def test_variables_are_on_no_command_line_and_in_no_log(clean: Daemon, api: Api, wall: str) -> None:
    first, second, third = (f"{word}{time.time_ns()}" for word in ("first", "second", "third"))
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Env": [f"S={first}"], "HostConfig": {"Isolation": wall}}
    name = api.ok("POST", "/containers/create", body)["Id"]
    api.ok("POST", f"/containers/{name}/start")
    made = api.ok("POST", f"/containers/{name}/exec", {"Cmd": ["sleep", "1000"], "Env": [f"S={second}"]})["Id"]
    api.ok("POST", f"/exec/{made}/start", {"Detach": True})
    token = base64.urlsafe_b64encode(json.dumps({"username": "u", "password": third}).encode()).decode()
    api("POST", "/images/create?fromImage=127.0.0.1:1/none&tag=1", b"", {"X-Registry-Auth": token})
    for secret in (first, second, third, token):
        assert spoken(secret) == []
        assert secret not in clean.log.read_text()
    for document in (f"/exec/{made}/json", "/containers/json?all=1", "/info", "/events?since=0&until=1"):
        assert second.encode() not in api("GET", document).body
        assert third.encode() not in api("GET", document).body
    for path in (*clean.data.glob("*"), *clean.run_root.glob("containers/*/*"), clean.log):
        text = path.read_bytes() if path.is_file() else b""
        assert third.encode() not in text
        if first.encode() in text or second.encode() in text:
            assert [each for each in (path, *path.parents) if not each.stat().st_mode & 0o007], f"{path} is open to all"

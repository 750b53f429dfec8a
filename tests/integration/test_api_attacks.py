"""Hostile clients: whatever they send, the daemon answers with one line or closes, and lives on (ATTACKS 27-30)."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clients.raw import Answer, Api
from tests.living import Daemon

from bastide.api.openapi.operations import OPERATIONS, Operation

FINE = frozenset((501, 503, 507))
"""Statuses of 500 and above that are answers, not failures: unsupported, unavailable, full."""


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Iterator[Api]:
    """The API of a daemon with one running container; all that the attacks made is removed."""
    daemon.ok("run", "-d", "--name", "victim", "busybox", "sleep", "10000")
    yield Api(f"unix://{daemon.socket}")
    daemon.clear()


def judge(answer: Answer, what: object) -> None:
    """An answer to nonsense: no failure of the daemon, one line, no trace."""
    assert answer.status < 500 or answer.status in FINE, f"{what}: {answer.status} {answer.body[:500]!r}"
    assert b"Traceback" not in answer.body
    if answer.status >= 400 and answer.headers.get("Content-Type") == "application/json" and answer.body:
        message = answer.json()["message"]
        assert isinstance(message, str)
        assert "\n" not in message


# -- 27: who reaches the API --------------------------------------------------------------------


def test_the_socket_is_roots_and_the_groups(daemon: Daemon) -> None:
    found = daemon.socket.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert found.st_uid == 0
    assert not found.st_mode & 0o007


def test_tcp_without_tls_is_refused_unless_asked_for_by_name() -> None:
    made = Daemon("ta", "10.120.0.0/16", "10.121.0.0/16", tcp="127.0.0.1:0")
    try:
        with pytest.raises(AssertionError):
            made.start()
        assert "insecure_tcp" in made.log.read_text()
    finally:
        made.close()


def test_a_guest_cannot_reach_the_api(daemon: Daemon, api: Api) -> None:
    gateway = api.ok("GET", "/networks/bridge")["IPAM"]["Config"][0]["Gateway"]
    for port in ("2375", "2376"):
        done = daemon.cli("exec", "victim", "nc", "-w", "1", gateway, port, stdin=b"")
        assert done.returncode != 0
    assert daemon.cli("exec", "victim", "ls", str(daemon.socket)).returncode != 0


# -- 28: bodies ---------------------------------------------------------------------------------

TEXT = st.text(max_size=30) | st.sampled_from(
    [
        "",
        "-x",
        "../../etc/passwd",
        "a\0b",
        "a\nb",
        "a,b",
        "%2e%2e",
        "\u202e",
        "\U0001f600",
        "x" * 5000,
        "²",
        "true",
        "-1",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CONFIG_FIELDS = (
    "Hostname Domainname User AttachStdin ExposedPorts Tty OpenStdin Env Cmd Healthcheck Volumes WorkingDir Entrypoint "
    "MacAddress Labels StopSignal StopTimeout Shell NetworkingConfig"
).split()
HOST_FIELDS = (
    "LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom Mounts ConsoleSize "
    "Annotations CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Links "
    "OomScoreAdj PidMode PublishAllPorts ReadonlyRootfs SecurityOpt StorageOpt Tmpfs UTSMode UsernsMode ShmSize "
    "Sysctls Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice "
    "BlkioDeviceReadBps CpuPeriod CpuQuota CpusetCpus Devices DeviceCgroupRules DeviceRequests MemoryReservation "
    "MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits Init MaskedPaths ReadonlyPaths"
).split()

RELAXED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@RELAXED
@given(
    config=st.dictionaries(st.sampled_from(CONFIG_FIELDS), JSON, max_size=3),
    host=st.dictionaries(st.sampled_from(HOST_FIELDS), JSON, max_size=3),
)
def test_wild_creates(api: Api, config: dict[str, Any], host: dict[str, Any]) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], **config, "HostConfig": host}
    answer = api("POST", "/containers/create", body, timeout=20)
    judge(answer, body)
    if answer.status == 201:
        name = answer.json()["Id"]
        judge(api("GET", f"/containers/{name}/json"), body)
        judge(api("GET", "/containers/json?all=1"), body)
        assert api("DELETE", f"/containers/{name}?force=1&v=1").status == 204


@RELAXED
@given(data=st.data())
def test_wild_queries(api: Api, data: st.DataObject) -> None:
    calm = [
        operation
        for operation in OPERATIONS
        if operation.path not in ("/auth", "/images/create", "/images/search", "/build", "/system/df", "/images/load")
        and not operation.path.endswith(("/ws", "/attach", "/wait", "/push", "/prune", "/stats", "/export", "/get"))
        and (operation.method != "DELETE" or operation.path.count("{"))
    ]
    operation: Operation = data.draw(st.sampled_from(calm))
    path = re.sub(r"{\w+}", lambda _: quote(data.draw(TEXT), safe="") or "-", operation.path)
    words = [word.partition(":")[0] for word in operation.query.split()]
    chosen = {name: data.draw(TEXT) for name in words if name != "follow" and data.draw(st.booleans())}
    if "filters" in words and data.draw(st.booleans()):
        chosen["filters"] = json.dumps(data.draw(JSON))
    if operation.path == "/events":
        chosen["until"] = str(int(time.time()))
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in chosen.items())
    body = data.draw(JSON) if operation.body not in ("", "tar") else None
    judge(api(operation.method, f"{path}?{query}", body, timeout=20), (operation.method, path, query, body))


@pytest.mark.parametrize(
    "path", ["/containers/create", "/networks/create", "/volumes/create", "/containers/victim/exec", "/auth"]
)
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"0", b'""', b"{", b'{"a":', b"[" * 200_000, b"\xff\xfe", b"{}" * 1000]
)
def test_bodies_that_are_none(api: Api, path: str, body: bytes) -> None:
    answer = api("POST", path, body, {"Content-Type": "application/json"})
    judge(answer, (path, body[:20]))


def test_the_same_power_in_another_field(api: Api) -> None:
    """A bind is a bind in `Binds` and in `Mounts`, and shows as one."""
    for host in (
        {"Binds": ["/etc:/mnt:ro"]},
        {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/mnt", "ReadOnly": True}]},
    ):
        made = api.ok("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
        (point,) = api.ok("GET", f"/containers/{made['Id']}/json")["Mounts"]
        assert (point["Type"], point["Source"], point["Destination"], point["RW"]) == ("bind", "/etc", "/mnt", False)
        api("DELETE", f"/containers/{made['Id']}")


def test_a_huge_body_is_refused_before_it_is_kept(api: Api) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(30)
        channel.connect(api.path)
        head = (
            "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Content-Length: 1000000000000\r\n\r\n"
        )
        channel.sendall(head.encode())
        answer = b""
        try:
            for _ in range(2000):
                channel.sendall(b"x" * 65536)
        except OSError:
            pass
        try:
            answer = channel.recv(4096)
        except OSError:
            answer = b""
    assert answer == b"" or b" 507 " in answer.splitlines()[0]


def test_slow_clients_keep_nobody_else_waiting(api: Api) -> None:
    slow = []
    for _ in range(50):
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(api.path)
        channel.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        slow.append(channel)
    begun = time.monotonic()
    for _ in range(20):
        assert api("GET", "/_ping").status == 200
    assert time.monotonic() - begun < 2
    for channel in slow:
        channel.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /_ping\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET " + b"/x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 100_000 + b"\r\n",
        b"\r\n" * 1000,
    ],
    ids=lambda junk: repr(junk[:30]),
)
def test_what_is_not_http(api: Api, junk: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(5)
        channel.connect(api.path)
        try:
            channel.sendall(junk)
            channel.shutdown(socket.SHUT_WR)
            answer = channel.recv(65536)
        except OSError:
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert api("GET", "/_ping").status == 200


# -- 29: web pages, markup ----------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:8000"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/containers/json"), ("POST", "/containers/create"), ("GET", "/containers/victim/attach/ws")],
)
def test_web_pages_are_refused(api: Api, origin: str, method: str, path: str) -> None:
    answer = api(method, path, headers={"Origin": origin})
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_form_cannot_create(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = api("POST", "/containers/create", b'{"Image": "busybox"}', {"Content-Type": kind})
        assert answer.status == 400


def test_markup_and_escapes_in_labels_stay_data(daemon: Daemon, api: Api) -> None:
    label = "<script>\x1b[31m\u202e"
    made = api.ok("POST", "/containers/create?name=marked", {"Image": "busybox", "Labels": {"x": label}})
    assert api.ok("GET", f"/containers/{made['Id']}/json")["Config"]["Labels"]["x"] == label
    assert api("GET", "/containers/json?all=1").headers["Content-Type"] == "application/json"
    api("DELETE", "/containers/marked")


# -- 30: paths and options ----------------------------------------------------------------------

HOSTILE = [
    "..",
    "../../etc/passwd",
    "a/../../b",
    "/etc/passwd",
    "a\nb",
    "a\0b",
    "-x",
    "--help",
    "a,b=c",
    "$(id)",
    "`id`",
    "a b",
    "\u202e",
    "x" * 1000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_hostile_names(daemon: Daemon, api: Api, name: str) -> None:
    before = sorted(os.listdir(daemon.data))
    for path, body in (
        (f"/containers/create?name={quote(name)}", {"Image": "busybox"}),
        ("/volumes/create", {"Name": name}),
        ("/networks/create", {"Name": name, "Driver": "bridge"}),
    ):
        answer = api("POST", path, body)
        judge(answer, (path, name))
        if answer.status < 300:
            made = answer.json()
            noun = path.split("/")[1]
            assert noun == "networks", f"{path} took {name!r}"
            assert api("DELETE", f"/networks/{made['Id']}").status == 204
    for path in (
        f"/containers/{quote(name, safe='')}/json",
        f"/images/{quote(name, safe='')}/json",
        f"/volumes/{quote(name, safe='')}",
    ):
        answer = api("GET", path)
        assert answer.status in (400, 404), (path, answer.status)
    assert sorted(os.listdir(daemon.data)) == before


@pytest.mark.parametrize("path", ["/../../../../etc/shadow", "/proc/1/root/etc/shadow", "/tmp/out/shadow"])
def test_archives_stay_in_the_container(daemon: Daemon, api: Api, path: str) -> None:
    daemon.ok("exec", "victim", "sh", "-c", "rm -f /tmp/out; ln -s /../../../etc /tmp/out")
    answer = api("GET", f"/containers/victim/archive?path={quote(path)}")
    assert answer.status in (400, 404), answer.body[:200]
    assert b"root:" not in answer.body.replace(b"root:x:", b"")


@pytest.mark.parametrize("value", ["-c0", "--help", "; id", "$(id)", "-o pid\n"])
def test_ps_arguments_are_arguments(api: Api, value: str) -> None:
    judge(api("GET", f"/containers/victim/top?ps_args={quote(value)}"), value)


# -- the daemon lives on ------------------------------------------------------------------------


def test_many_clients_that_leave_early(daemon: Daemon, api: Api) -> None:
    assert daemon.process is not None
    fds = Path(f"/proc/{daemon.process.pid}/fd")

    def leave() -> None:
        for _ in range(10):
            for request in (
                b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
                b"POST /containers/victim/wait HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /containers/victim/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /containers/victim/stats HTTP/1.1\r\nHost: x\r\n\r\n",
                b"POST /containers/victim/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n",
            ):
                with socket.socket(socket.AF_UNIX) as channel:
                    channel.connect(api.path)
                    channel.sendall(request)
                    seen = b""
                    while b"\r\n\r\n" not in seen:
                        seen += channel.recv(4096)

    leave()
    time.sleep(1)
    before = len(os.listdir(fds))
    threads = [threading.Thread(target=leave) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 10
    while len(os.listdir(fds)) > before + 5:
        assert time.monotonic() < deadline, f"{before} descriptors before, {len(os.listdir(fds))} after"
        time.sleep(0.2)
    assert api.ok("GET", "/containers/victim/json")["State"]["Running"]


def test_nothing_failed_inside(daemon: Daemon) -> None:
    """What the daemon itself took for a defect it has written to its log."""
    assert "Traceback" not in daemon.log.read_text()

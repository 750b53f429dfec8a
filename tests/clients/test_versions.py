"""What depends on the API version that a client speaks: what it is shown, and what its requests mean.

Source: Docker's "Engine API version history"; the switch holds the tables against a real dockerd, as far as it goes.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import ANY

import pytest
from tests.clients.conftest import Docker
from tests.clients.engines import PEER
from tests.clients.newer import dockerd_minor
from tests.clients.raw import Api

LAST = 47 if PEER == "bastide" else dockerd_minor()
"""The newest minor version."""

SHOWN = [
    ("/images/json", "VirtualSize", 24, 43),
    ("/images/busybox/json", "VirtualSize", 24, 43),
    ("/images/busybox/json", "ContainerConfig", 24, 44),
    ("/images/busybox/json", "ContainerConfig.Hostname", 24, 44),
    ("/networks", "Containers.*.Name", 24, 27),
    ("/info", "KernelMemory", 24, 41),
    ("/info", "Runtimes.*.status", 44, LAST),
    # dockerd 28 says it to nobody.
    *([("/info", "ExecutionDriver", 24, 24)] if PEER == "bastide" or LAST == 45 else []),
    ("/system/df", "Images.VirtualSize", 24, 43),
    ("/containers/busy/stats?stream=0&one-shot=1", "precpu_stats.system_cpu_usage", 24, 40),
]
"""A path, a field, and the minor versions from which and until which it is there."""


@pytest.fixture(scope="module")
def host(cli: Docker) -> Iterator[str]:
    made = Api(cli.host)
    made.ok("POST", "/networks/create", {"Name": "net"})
    made.ok("POST", "/containers/create?name=busy", {"Image": "busybox", "Cmd": ["sleep", "1000"], "Hostname": "own"})
    made.ok("POST", "/networks/net/connect", {"Container": "busy", "EndpointConfig": {"Aliases": ["nick"]}})
    made.ok("POST", "/containers/busy/start")
    yield cli.host
    made("DELETE", "/containers/busy?force=1")
    made("DELETE", "/networks/net")


def has(value: Any, names: list[str]) -> bool:
    """Whether a field is somewhere in an answer; `*` is any name."""
    if isinstance(value, list):
        return any(has(one, names) for one in value)
    if not names:
        return True
    if not isinstance(value, dict):
        return False
    inner = list(value.values()) if names[0] == "*" else [value[names[0]]] if names[0] in value else []
    return any(has(one, names[1:]) for one in inner)


@pytest.mark.parametrize(("path", "field", "first", "last"), SHOWN)
def test_fields_of_answers(host: str, path: str, field: str, first: int, last: int) -> None:
    for minor in {24, first - 1, first, last, last + 1, LAST} & set(range(24, LAST + 1)):
        answer = Api(host, f"1.{minor}").ok("GET", path)
        assert has(answer, field.split(".")) is (first <= minor <= last), minor


def test_a_containers_own_names_are_aliases_until_1_44(host: str) -> None:
    short = Api(host).ok("GET", "/containers/busy/json")["Id"][:12]
    shown = {
        minor: Api(host, f"1.{minor}").ok("GET", "/containers/busy/json")["NetworkSettings"]["Networks"]["net"]
        for minor in (44, 45)
    }
    assert shown[44]["Aliases"] == ["nick", short, "own"]
    assert shown[45]["Aliases"] == ["nick"]


def _host(container: dict[str, Any], name: str) -> Any:
    return container["HostConfig"][name]


def _mount(container: dict[str, Any], options: str, name: str) -> Any:
    (mount,) = container["HostConfig"]["Mounts"]
    return (mount.get(options) or {}).get(name)


def _mac(container: dict[str, Any]) -> Any:
    return container["NetworkSettings"]["Networks"]["bridge"].get("MacAddress", "")


MAC = "02:11:22:33:44:55"
Read = Callable[[dict[str, Any]], Any]
MEANT: list[tuple[dict[str, Any], int, Read, Any, Any]] = [
    ({"HostConfig": {"AutoRemove": True}}, 25, lambda made: _host(made, "AutoRemove"), False, True),
    ({}, 40, lambda made: _host(made, "IpcMode"), "shareable", "private"),
    ({"HostConfig": {"CgroupnsMode": ""}}, 41, lambda made: _host(made, "CgroupnsMode"), "host", ANY),
    ({"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": MAC}}}}, 44, _mac, "", MAC),
    ({"HostConfig": {"ConsoleSize": [7, 9]}}, 42, lambda made: _host(made, "ConsoleSize"), [0, 0], [7, 9]),
    (
        {"HostConfig": {"Annotations": {"a": "b"}}},
        43,
        lambda made: made["HostConfig"].get("Annotations"),
        None,
        {"a": "b"},
    ),
    (
        {"Healthcheck": {"Test": ["CMD", "true"], "StartInterval": 1_000_000_000}},
        44,
        lambda made: made["Config"]["Healthcheck"].get("StartInterval", 0),
        0,
        1_000_000_000,
    ),
    (
        {
            "HostConfig": {
                "Mounts": [{"Type": "bind", "Source": "/usr", "Target": "/u", "ReadOnly": True, "BindOptions": {}}]
            }
        },
        44,
        lambda made: _mount(made, "BindOptions", "ReadOnlyNonRecursive") or False,
        True,
        False,
    ),
]
"""A creation, the minor version from which on it means something else, what to look at, what it is before and since."""


def test_an_address_beside_the_networks(host: str) -> None:
    """It is still understood, and those who could say it otherwise are told so."""
    for minor, warned in ((43, False), (44, True)):
        one = Api(host, f"1.{minor}")
        made = one.ok("POST", "/containers/create", {"Image": "busybox", "MacAddress": MAC})
        assert any("MacAddress field is now deprecated" in warning for warning in made["Warnings"] or []) is warned
        assert _mac(one.ok("GET", f"/containers/{made['Id']}/json")) == MAC
        one.ok("DELETE", f"/containers/{made['Id']}")


def test_the_filter_that_was_a_parameter(host: str) -> None:
    """By name, before it was one of the filters; ignored since."""
    for minor, found in ((40, False), (41, True)):
        assert bool(Api(host, f"1.{minor}").ok("GET", "/images/json?filter=nothing")) is found
    assert Api(host, "1.40").ok("GET", "/images/json?filter=busybox")


@pytest.mark.parametrize(("asked", "since", "read", "before", "after"), MEANT)
def test_what_creations_mean(host: str, asked: dict[str, Any], since: int, read: Read, before: Any, after: Any) -> None:
    for minor, expected in ((since - 1, before), (since, after)):
        one = Api(host, f"1.{minor}")
        identity = one.ok("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], **asked})["Id"]
        try:
            found = read(Api(host, f"1.{LAST}").ok("GET", f"/containers/{identity}/json"))
            assert found == expected
        finally:
            one("DELETE", f"/containers/{identity}?v=1")


@pytest.mark.parametrize(
    ("mount", "since", "needed"),
    [
        (
            {"Type": "volume", "Source": "versioned", "Target": "/v", "VolumeOptions": {"Subpath": "sub"}},
            45,
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            {
                "Type": "bind",
                "Source": "/usr",
                "Target": "/u",
                "ReadOnly": True,
                "BindOptions": {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"},
            },
            44,
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
    ],
)
def test_what_a_version_lacks_is_refused(host: str, mount: dict[str, Any], since: int, needed: str) -> None:
    asked = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
    answer = Api(host, f"1.{since - 1}")("POST", "/containers/create", asked)
    assert (answer.status, answer.json()) == (400, {"message": needed})
    made = Api(host, f"1.{since}").ok("POST", "/containers/create", asked)
    Api(host)("DELETE", f"/containers/{made['Id']}?v=1")
    Api(host)("DELETE", "/volumes/versioned")


@pytest.mark.parametrize(
    ("mount", "options"),
    [({"Type": "bind", "Source": "/usr"}, "TmpfsOptions"), ({"Type": "tmpfs"}, "VolumeOptions")],
)
def test_options_of_another_type_of_mount_until_1_41(host: str, mount: dict[str, Any], options: str) -> None:
    wanted = {**mount, "Target": "/m", options: {}}
    asked = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [wanted]}}
    made = Api(host, "1.41").ok("POST", "/containers/create", asked)
    Api(host)("DELETE", f"/containers/{made['Id']}")
    answer = Api(host, "1.42")("POST", "/containers/create", asked)
    assert answer.status == 400
    assert f'{options} must not be specified on mount type "{mount["Type"]}"' in answer.json()["message"]


def test_a_wait_until_it_is_removed_since_1_30(host: str) -> None:
    """Before, every wait was one for a container that does not run, as this one."""
    for minor, waits in ((29, False), (30, True)):
        made = Api(host, f"1.{minor}").ok("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
        path = f"/v1.{minor}/containers/{made['Id']}/wait?condition=removed"
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(host.removeprefix("unix://"))
            channel.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            channel.settimeout(3)
            said = b""
            with contextlib.suppress(TimeoutError):
                while b"StatusCode" not in said:
                    said += channel.recv(4096)
            assert (b"StatusCode" not in said) is waits, said
            Api(host)("DELETE", f"/containers/{made['Id']}")


def test_the_size_of_an_execs_terminal_since_1_42(host: str) -> None:
    for minor, told in ((41, False), (42, True)):
        one = Api(host, f"1.{minor}")
        asked = {"Cmd": ["sh", "-c", "stty size <&1"], "Tty": True, "AttachStdout": True, "ConsoleSize": [7, 9]}
        made = one.ok("POST", "/containers/busy/exec", asked)
        answer = one("POST", f"/exec/{made['Id']}/start", {"Tty": True, "ConsoleSize": [7, 9]})
        assert ("7 9" in answer.body.decode()) is told, minor


def test_a_platform_of_a_creation_since_1_41(host: str) -> None:
    for minor, status in ((40, 201), (41, 404)):
        one = Api(host, f"1.{minor}")
        answer = one("POST", "/containers/create?platform=linux/s390x", {"Image": "busybox", "Cmd": ["true"]})
        assert answer.status == status, answer.body
        if status == 201:
            one("DELETE", f"/containers/{answer.json()['Id']}")


def test_one_network_at_creation_until_1_43(host: str) -> None:
    two = {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"net": {}, "bridge": {}}}}
    two["HostConfig"] = {"NetworkMode": "net"}
    answer = Api(host, "1.43")("POST", "/containers/create", two)
    assert answer.status == 400, answer.body
    assert answer.json()["message"].startswith("Container cannot be created with multiple network endpoints: ")
    made = Api(host, "1.44").ok("POST", "/containers/create", two)
    Api(host)("DELETE", f"/containers/{made['Id']}")


def test_a_stop_signal_of_the_request_since_1_42(host: str) -> None:
    """It is sent instead of the container's own: seen by the exit code of a shell that traps it."""
    trap = "trap 'exit 5' TERM; trap 'exit 6' USR1; echo ready; while true; do sleep 0.1; done"
    for minor, code in ((41, 5), (42, 6)):
        one = Api(host, f"1.{minor}")
        identity = one.ok("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", trap]})["Id"]
        one.ok("POST", f"/containers/{identity}/start")
        deadline = time.monotonic() + 30
        while b"ready" not in one("GET", f"/containers/{identity}/logs?stdout=1").body:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert one("POST", f"/containers/{identity}/stop?signal=USR1&t=5").status == 204
        assert one.ok("GET", f"/containers/{identity}/json")["State"]["ExitCode"] == code
        one("DELETE", f"/containers/{identity}")


def test_dangling_images_have_names_until_1_42(host: str) -> None:
    one = Api(host)
    identity = one.ok("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    image = one.ok("POST", f"/commit?container={identity}", {})["Id"]
    one("DELETE", f"/containers/{identity}")
    for minor, tags in ((42, ["<none>:<none>"]), (43, [])):
        rows = Api(host, f"1.{minor}").ok("GET", "/images/json")
        assert [row["RepoTags"] for row in rows if row["Id"] == image] == [tags]
    one("DELETE", f"/images/{image}")

"""Answers of a live engine against the description of the API; with the switch, those of a real dockerd."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients.conftest import Docker
from tests.clients.engines import PEER
from tests.clients.newer import dockerd_minor
from tests.clients.raw import Api, filters

from bastide.api.openapi.check import problems
from bastide.api.openapi.operations import OPERATIONS, Operation

EXACT = PEER == "bastide"
"""A real dockerd of another version may say more than version 1.47 does."""
NEWEST = 47 if EXACT else dockerd_minor()
"""The minor version that is spoken where no other is tried."""


@pytest.fixture(scope="module")
def api(cli: Docker) -> Iterator[Api]:
    """The engine with one of everything: `busy` runs, `still` does not, `net`, `vol`, an ended exec."""
    made = Api(cli.host, f"1.{NEWEST}")
    made.ok("POST", "/networks/create", {"Name": "net", "Driver": "bridge", "Labels": {"a": "b"}})
    made.ok("POST", "/volumes/create", {"Name": "vol", "Labels": {"a": "b"}})
    health = {"Test": ["CMD", "true"], "Interval": 200_000_000}
    host = {
        "Binds": ["vol:/vol"],
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "38490"}]},
        "Memory": 64 << 20,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
    }
    busy = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo hello; sleep 1000"],
        "Labels": {"a": "b"},
        "Healthcheck": health,
        "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
        "HostConfig": host,
    }
    made.ok("POST", "/containers/create?name=busy", busy)
    made.ok("POST", "/containers/busy/start")
    made.ok("POST", "/networks/net/connect", {"Container": "busy", "EndpointConfig": {"Aliases": ["nick"]}})
    made.ok("POST", "/containers/create?name=still", {"Image": "busybox"})
    deadline = time.monotonic() + 20
    while made.ok("GET", "/containers/busy/json")["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield made
    made("DELETE", "/containers/busy?force=1")
    made("DELETE", "/containers/still?force=1")
    made("DELETE", "/networks/net")
    made("DELETE", "/volumes/vol")


ANSWERS = [
    ("/containers/json?all=1&size=1", "[ContainerSummary]"),
    ("/containers/busy/json", "ContainerInspect"),
    ("/containers/busy/json?size=1", "ContainerInspect"),
    ("/containers/still/json", "ContainerInspect"),
    ("/containers/busy/top", "Top"),
    ("/containers/busy/changes", "[Change]?"),
    ("/containers/busy/stats?stream=0&one-shot=1", "Stats"),
    ("/containers/busy/stats?stream=0", "Stats"),
    ("/images/json?all=1", "[ImageSummary]"),
    ("/images/busybox/json", "ImageInspect"),
    ("/images/busybox/history", "[HistoryItem]"),
    ("/networks", "[Network]"),
    ("/networks/net", "Network"),
    ("/networks/bridge", "Network"),
    ("/volumes", "Volumes"),
    ("/volumes/vol", "Volume"),
    ("/version", "Version"),
    ("/info", "Info"),
    ("/system/df", "DiskUsage"),
    ("/plugins", "[any]"),
]


@pytest.mark.parametrize(("path", "shape"), ANSWERS)
def test_answers(api: Api, path: str, shape: str) -> None:
    answer = api("GET", path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert problems(answer.json(), shape, exact=EXACT, minor=NEWEST) == []


def test_answers_of_calls_that_change_things(api: Api) -> None:
    made = api("POST", "/containers/busy/exec", {"Cmd": ["true"], "AttachStdout": True})
    assert made.status == 201
    assert problems(made.json(), "Id", exact=EXACT, minor=NEWEST) == []
    identity = made.json()["Id"]
    assert problems(api.ok("GET", f"/exec/{identity}/json"), "ExecInspect", exact=EXACT, minor=NEWEST) == []
    assert api("POST", f"/exec/{identity}/start", {"Detach": True}).status == 200
    created = api("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    assert created.status == 201
    assert problems(created.json(), "Created", exact=EXACT, minor=NEWEST) == []
    name = created.json()["Id"]
    assert api("POST", f"/containers/{name}/start").status == 204
    waited = api("POST", f"/containers/{name}/wait")
    assert problems(waited.json(), "Waited", exact=EXACT, minor=NEWEST) == []
    updated = api("POST", f"/containers/{name}/update", {"RestartPolicy": {"Name": "no"}})
    assert problems(updated.json(), "Warnings", exact=EXACT, minor=NEWEST) == []
    assert api("DELETE", f"/containers/{name}").status == 204
    for path, shape in (
        ("/containers/prune?" + filters(label=["none"]), "ContainersPruned"),
        ("/images/prune?" + filters(label=["none"]), "ImagesPruned"),
        ("/volumes/prune?" + filters(label=["none"]), "VolumesPruned"),
        ("/networks/prune?" + filters(label=["none"]), "NetworksPruned"),
    ):
        assert problems(api.ok("POST", path), shape, exact=EXACT, minor=NEWEST) == [], path


def test_events(api: Api) -> None:
    begun = time.time()
    api.ok("POST", "/containers/busy/pause")
    api.ok("POST", "/containers/busy/unpause")
    rows = api("GET", f"/events?since={begun:.3f}&until={time.time() + 0.1:.3f}").lines()
    assert {"pause", "unpause"} <= {row["Action"] for row in rows}
    for row in rows:
        assert problems(row, "Event", exact=EXACT, minor=NEWEST) == []


NAMED = [
    operation
    for operation in OPERATIONS
    if 404 in operation.refusals
    and operation.path.startswith(("/containers/{", "/networks/{", "/volumes/{", "/exec/{", "/images/{name}/"))
    and not operation.path.endswith(("/ws", "/push"))
]
BODIES: dict[str, Any] = {
    "ExecConfig": {"Cmd": ["true"]},
    "ExecStart": {"Detach": True},
    "HostConfig": {},
    "NetworkConnect": {"Container": "busy"},
    "NetworkDisconnect": {"Container": "busy"},
}


@pytest.mark.parametrize("operation", NAMED, ids=lambda operation: f"{operation.method} {operation.path}")
def test_what_is_not_there(api: Api, operation: Operation) -> None:
    query = {"resize": "h=1&w=1", "archive": "path=/", "logs": "stdout=1", "rename": "name=x", "tag": "repo=x"}
    path = re.sub(r"{\w+}", "nothing-here", operation.path)
    path += "?" + query.get(operation.path.rpartition("/")[2], "")
    body = b"" if operation.body == "tar" else BODIES.get(operation.body)
    answer = api(operation.method, path, body)
    assert answer.status == 404, answer.body
    if operation.method != "HEAD" and answer.headers["Content-Type"] == "application/json":
        assert problems(answer.json(), "Error") == []


@pytest.mark.parametrize("minor", [24, 25, 27, 28, 40, 41, 42, 43, 44, 45, 46])
def test_older_versions(api: Api, minor: int) -> None:
    """What the description says of each version, down to the fields that came and went."""
    old = Api(f"unix://{api.path}", f"1.{min(minor, NEWEST)}")
    for path, shape in ANSWERS:
        if not path.endswith("stream=0"):
            found = problems(old.ok("GET", path), shape, exact=EXACT, minor=minor)
            # Since dockerd 28 it is in every answer.
            assert [each for each in found if EXACT or "EnableIPv4" not in each] == [], path
    assert old("GET", "/_ping").body == b"OK"
    assert {row["Names"][0] for row in old.ok("GET", "/containers/json?all=1")} == {"/busy", "/still"}
    assert old.ok("GET", "/containers/busy/json")["State"]["Running"]


@pytest.mark.parametrize(("version", "word"), [("1.99", "too new"), ("1.1", "too old")])
def test_versions_that_are_not_spoken(api: Api, version: str, word: str) -> None:
    answer = Api(f"unix://{api.path}", version)("GET", "/info")
    assert answer.status == 400
    # dockerd 28 tells clients from before the errors in JSON in plain text.
    assert word in answer.body.decode()

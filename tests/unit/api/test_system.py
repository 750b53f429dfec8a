from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

import msgspec
import pytest

from bastide.api.docker.system import event_passes
from bastide.engine.events import Event

from .conftest import ID, Api


def event(kind: str = "container", action: str = "start", subject: str = ID, **attributes: str) -> Event:
    return Event(kind=kind, action=action, id=subject, attributes=attributes, scope="local", time=1)


async def test_events_come_as_they_happen(api: Api) -> None:
    events = api.engine.events
    async with api.session.get("http://x/events") as answer:
        assert answer.status == 200
        events.publish("container", "start", ID, {"name": "web", "image": "busybox"})
        shown = msgspec.json.decode(await asyncio.wait_for(answer.content.readline(), 5))
    assert shown["status"] == shown["Action"] == "start"
    assert (shown["id"], shown["from"], shown["Type"], shown["scope"]) == (ID, "busybox", "container", "local")
    assert shown["Actor"] == {"ID": ID, "Attributes": {"name": "web", "image": "busybox"}}
    assert shown["timeNano"] // 1_000_000_000 == shown["time"]
    await asyncio.sleep(0.05)
    assert events.listeners == 0


async def test_past_events(api: Api) -> None:
    begun = time.time()
    for number in range(300):
        api.engine.events.publish("volume", "create", f"v{number}", {"driver": "local"})
    async with api.session.get(f"http://x/events?since={begun}&until={time.time() + 0.2}") as answer:
        data = await answer.read()
    rows = [msgspec.json.decode(line) for line in data.splitlines()]
    assert len(rows) == 256
    assert rows[-1]["Actor"]["ID"] == "v299"
    assert "status" not in rows[0]


async def test_events_that_are_all_past(api: Api) -> None:
    api.engine.events.publish("volume", "create", "v1", {"driver": "local"})
    begun = asyncio.get_running_loop().time()
    async with api.session.get(f"http://x/events?since=5s&until={time.time()}") as answer:
        data = await answer.read()
    assert data.count(b"\n") == 1
    assert asyncio.get_running_loop().time() - begun < 1


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({}, True),
        ({"type": ["container"]}, True),
        ({"type": ["volume"]}, False),
        ({"event": ["start", "die"]}, True),
        ({"event": ["die"]}, False),
        ({"container": ["web"]}, True),
        ({"container": [ID[:12]]}, True),
        ({"container": ["other"]}, False),
        ({"image": ["busybox"]}, True),
        ({"image": ["busybox:1"]}, True),
        ({"image": ["alpine"]}, False),
        ({"label": ["a=b"]}, True),
        ({"label": ["a=c"]}, False),
        ({"network": ["x"]}, False),
        ({"scope": ["swarm"]}, False),
    ],
)
def test_event_filters(wanted: dict[str, list[str]], passes: bool) -> None:
    assert event_passes(event(name="web", image="busybox:1", a="b"), wanted) is passes


def test_an_exec_event_is_found_by_its_kind() -> None:
    assert event_passes(event(action="exec_start: sh -c x"), {"event": ["exec_start"]})


def test_events_of_a_network_about_a_container() -> None:
    joined = event("network", "connect", "net1", container=ID, name="back")
    assert event_passes(joined, {"container": [ID]})
    assert event_passes(joined, {"network": ["back"]})


@pytest.mark.parametrize("query", ["since=x", "until=y", "filters=" + quote('{"colour":["red"]}')])
async def test_bad_event_queries(api: Api, query: str) -> None:
    assert (await api.call("GET", f"/events?{query}"))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/swarm", 503),
        ("POST", "/swarm/init", 501),
        ("POST", "/swarm/leave", 503),
        ("GET", "/nodes", 503),
        ("GET", "/services", 503),
        ("POST", "/secrets/create", 503),
        ("GET", "/plugins", 200),
        ("GET", "/plugins/some/one:latest/json", 404),
        ("POST", "/session", 501),
    ],
)
async def test_absent_parts(api: Api, method: str, path: str, status: int) -> None:
    code, answer = await api.call(method, path)
    assert code == status
    assert answer == [] or answer["message"]


async def test_info(api: Api) -> None:
    assert await api.call("GET", "/info") == (200, {"Name": "fake"})

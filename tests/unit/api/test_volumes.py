from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from .conftest import ID, Api


def filters(values: object) -> str:
    return quote(msgspec.json.encode(values).decode())


async def test_life(api: Api) -> None:
    body = {"Name": "data", "Driver": "local", "Labels": {"a": "b"}, "DriverOpts": None}
    status, made = await api.call("POST", "/volumes/create", json=body)
    assert (status, made["Name"], made["Scope"], made["Options"]) == (201, "data", "local", None)
    assert Path(made["Mountpoint"]).is_dir()
    assert (await api.call("POST", "/volumes/create", json=body))[1] == made
    assert (await api.call("GET", "/volumes/data"))[1] == made
    _, listed = await api.call("GET", "/volumes")
    assert [volume["Name"] for volume in listed["Volumes"]] == ["data"]
    assert (await api.call("DELETE", "/volumes/data"))[0] == 204
    assert not Path(made["Mountpoint"]).exists()
    assert await api.call("GET", "/volumes/data") == (404, {"message": "get data: no such volume"})
    assert (await api.call("DELETE", "/volumes/data"))[0] == 404
    assert (await api.call("DELETE", "/volumes/data?force=1"))[0] == 204


async def test_a_used_volume_stays(api: Api) -> None:
    await api.call("POST", "/volumes/create", json={"Name": "used"})
    status, answer = await api.call("DELETE", "/volumes/used?force=1")
    assert (status, answer["message"]) == (409, f"remove used: volume is in use - [{ID}]")


async def test_anonymous_volumes(api: Api) -> None:
    _, made = await api.call("POST", "/volumes/create", json={})
    assert len(made["Name"]) == 64
    assert made["Labels"] == {"com.docker.volume.anonymous": ""}
    await api.call("POST", "/volumes/create", json={"Name": "named"})
    _, pruned = await api.call("POST", "/volumes/prune")
    assert pruned == {"VolumesDeleted": [made["Name"]], "SpaceReclaimed": 0}
    _, pruned = await api.call("POST", f"/volumes/prune?filters={filters({'all': ['true']})}")
    assert pruned["VolumesDeleted"] == ["named"]


async def test_old_versions_prune_every_unused_one(api: Api) -> None:
    for name in ("one", "used"):
        await api.call("POST", "/volumes/create", json={"Name": name})
    (Path(api.engine.volumes.get("one").mountpoint) / "f").write_bytes(b"x" * 100)
    _, pruned = await api.call("POST", "/v1.41/volumes/prune")
    assert pruned == {"VolumesDeleted": ["one"], "SpaceReclaimed": 100}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"Name": "../up"}, 400),
        ({"Name": "a/b"}, 400),
        ({"Name": "-x"}, 400),
        ({"Name": "x" * 300}, 400),
        ({"Name": "a\nb"}, 400),
        ({"Name": "ok", "Driver": "other"}, 404),
        ({"Name": "ok", "DriverOpts": {"colour": "red"}}, 400),
        ({"Name": "ok", "DriverOpts": {"type": "nfs"}}, 400),
        ({"Name": "ok", "DriverOpts": {"o": "bind"}}, 400),
        ({"Name": "ok", "ClusterVolumeSpec": {}}, 501),
    ],
)
async def test_bad_volumes(api: Api, body: object, status: int) -> None:
    code, answer = await api.call("POST", "/volumes/create", json=body)
    assert code == status
    assert answer["message"]
    assert (await api.call("GET", "/volumes"))[1]["Volumes"] == []


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"dangling": ["true"]}, ["alone"]),
        ({"dangling": ["0"]}, ["used"]),
        ({"name": ["al"]}, ["alone"]),
        ({"driver": ["local"]}, ["alone", "used"]),
        ({"driver": ["nfs"]}, []),
        ({"label": ["k=v"]}, ["alone"]),
    ],
)
async def test_filters(api: Api, wanted: object, names: list[str]) -> None:
    await api.call("POST", "/volumes/create", json={"Name": "alone", "Labels": {"k": "v"}})
    await api.call("POST", "/volumes/create", json={"Name": "used"})
    _, listed = await api.call("GET", f"/volumes?filters={filters(wanted)}")
    assert [volume["Name"] for volume in listed["Volumes"]] == names


@pytest.mark.parametrize("wanted", [{"dangling": ["maybe"]}, {"colour": ["red"]}])
async def test_bad_filters(api: Api, wanted: object) -> None:
    assert (await api.call("GET", f"/volumes?filters={filters(wanted)}"))[0] == 400


async def test_events(api: Api) -> None:
    with api.engine.events.subscribe() as listener:
        await api.call("POST", "/volumes/create", json={"Name": "v1"})
        await api.call("DELETE", "/volumes/v1")
        seen = [await anext(aiter(listener)) for _ in range(2)]
    assert [(event.kind, event.action, event.id) for event in seen] == [
        ("volume", "create", "v1"),
        ("volume", "destroy", "v1"),
    ]

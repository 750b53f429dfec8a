from __future__ import annotations

import asyncio
from urllib.parse import quote

import msgspec
import pytest

from bastide.engine.ledger import Waited
from bastide.model.container import Config, Health, HostConfig, MountPoint, RestartPolicy, State, Status
from bastide.model.errors import Conflict, NotFound, PermissionDenied
from bastide.model.network import PortBinding
from bastide.model.process import TerminalSize

from .conftest import ID, IMAGE_ID, Api, make_container


def filters(**values: list[str]) -> str:
    plain = {name.replace("_", "-"): value for name, value in values.items()}
    return quote(msgspec.json.encode(plain).decode())


async def test_create_hands_on_what_was_asked(api: Api) -> None:
    wanted = {
        "Image": "busybox",
        "Cmd": ["true"],
        "Hostname": None,
        "Env": None,
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"Memory": 1 << 30, "Binds": None, "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
        "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["a"], "IPAMConfig": None}, "other": None}},
        "SomethingNew": True,
    }
    status, answer = await api.call("POST", "/v1.44/containers/create?name=/one&platform=linux/amd64", json=wanted)
    assert (status, answer["Warnings"]) == (201, ["careful"])
    verb, name, config, host, endpoints, platform = api.engine.containers.calls[0]
    assert (verb, name, platform) == ("create", "one", "linux/amd64")
    assert (config.image, config.cmd, config.hostname) == ("busybox", ["true"], "")
    assert (host.memory, host.binds) == (1 << 30, None)
    assert host.port_bindings == {"80/tcp": [PortBinding(host_port="8080")]}
    assert endpoints["net"].aliases == ["a"]
    assert set(endpoints) == {"net", "other"}


async def test_a_name_in_use_is_a_conflict(api: Api) -> None:
    status, answer = await api.call("POST", "/containers/create?name=web", json={"Image": "busybox"})
    assert status == 409
    assert answer["message"].startswith('Conflict. The container name "/web" is already in use')


@pytest.mark.parametrize(
    ("host", "field"),
    [
        ({"CpuRealtimePeriod": 5}, "CpuRealtimePeriod"),
        ({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}, "DeviceRequests"),
        ({"UsernsMode": "private"}, "UsernsMode"),
        ({"CpuCount": 2}, "CpuCount"),
        ({"IOMaximumIOps": 2}, "IOMaximumIOps"),
        ({"Cgroup": "container:x"}, "Cgroup"),
    ],
)
async def test_fields_that_cannot_be_honoured_are_refused_by_name(api: Api, host: object, field: str) -> None:
    status, answer = await api.call("POST", "/containers/create", json={"Image": "busybox", "HostConfig": host})
    assert status == 501
    assert f"HostConfig.{field}" in answer["message"]
    assert not api.engine.containers.calls


@pytest.mark.parametrize("subpath", ["..", "a/../../b", "/etc"])
async def test_subpaths_begin_in_their_volume(api: Api, subpath: str) -> None:
    mount = {"Type": "volume", "Source": "v", "Target": "/t", "VolumeOptions": {"Subpath": subpath}}
    wanted = {"Image": "busybox", "HostConfig": {"Mounts": [mount]}}
    assert (await api.call("POST", "/containers/create", json=wanted))[0] == 400


async def test_what_is_missing_beside_the_image_does_not_make_clients_pull(api: Api) -> None:
    api.engine.containers.fail = NotFound("network n not found")
    assert (await api.call("POST", "/containers/create", json={"Image": "busybox"}))[0] == 400
    api.engine.containers.fail = NotFound("No such image: n")
    assert (await api.call("POST", "/containers/create", json={"Image": "busybox"}))[0] == 404


async def test_the_hardware_address_of_old_clients_goes_to_the_network(api: Api) -> None:
    wanted = {"Image": "busybox", "MacAddress": "02:00:00:00:00:01", "HostConfig": {"NetworkMode": "net"}}
    assert (await api.call("POST", "/containers/create", json=wanted))[0] == 201
    assert api.engine.containers.calls[0][4]["net"].mac_address == "02:00:00:00:00:01"


async def test_inspect(api: Api) -> None:
    api.engine.containers.add(
        make_container(
            ports={"80/tcp": [PortBinding(host_ip="0.0.0.0", host_port="8080")]},
            mounts=[MountPoint(type="volume", name="v", source="/s", destination="/d", driver="local")],
        )
    )
    status, shown = await api.call("GET", "/containers/web/json?size=1")
    assert status == 200
    assert (shown["Id"], shown["Name"], shown["Image"]) == (ID, "/web", IMAGE_ID)
    assert shown["State"]["Running"]
    assert "Health" not in shown["State"]
    assert shown["Config"]["Cmd"] == ["sleep", "1"]
    assert "Healthcheck" not in shown["Config"]
    assert shown["HostConfig"]["MaskedPaths"]
    assert shown["NetworkSettings"]["IPAddress"] == "10.88.0.2"
    assert shown["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    assert shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "10.88.0.2"
    assert shown["Mounts"][0]["RW"]
    assert (shown["SizeRw"], shown["SizeRootFs"]) == (11, 111)


async def test_a_stopped_container_has_no_address(api: Api) -> None:
    api.engine.containers.add(make_container(state=State(status=Status.EXITED), ports={"80/tcp": None}))
    _, shown = await api.call("GET", "/containers/web/json")
    assert shown["NetworkSettings"]["Ports"] == {}
    assert shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == ""
    assert not shown["State"]["Running"]


async def test_a_summary(api: Api) -> None:
    api.engine.containers.add(
        make_container(
            args=["-c", "a b"],
            config=Config(image="busybox", exposed_ports={"53/udp": {}}),
            ports={"80/tcp": [PortBinding(host_ip="::", host_port="8080")]},
        )
    )
    _, rows = await api.call("GET", "/containers/json?size=1")
    (row,) = rows
    assert row["Names"] == ["/web"]
    assert row["Command"] == "sleep -c 'a b'"
    assert row["Image"] == "busybox"
    assert row["Created"] == 1767323040
    assert {"PrivatePort": 53, "Type": "udp"} in row["Ports"]
    assert {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"} in row["Ports"]
    assert row["SizeRw"] == 11


async def test_an_image_whose_name_moved_is_shown_by_id(api: Api) -> None:
    api.engine.containers.add(make_container(image_id="sha256:old"))
    _, rows = await api.call("GET", "/containers/json")
    assert rows[0]["Image"] == "sha256:old"


async def test_list_shows_what_runs_unless_told(api: Api) -> None:
    for number in (1, 2, 3):
        api.engine.containers.add(make_container(number, state=State(status=Status.EXITED)))
    assert len((await api.call("GET", "/containers/json"))[1]) == 1
    assert len((await api.call("GET", "/containers/json?all=true"))[1]) == 4
    rows = (await api.call("GET", "/containers/json?limit=2"))[1]
    assert [row["Names"][0] for row in rows] == ["/c3", "/c2"]
    assert len((await api.call("GET", "/containers/json?all=1&limit=-1"))[1]) == 4


FILTERS = [
    ({"id": [ID[:6]]}, {"web"}),
    ({"name": ["^/web$"]}, {"web"}),
    ({"name": ["w"]}, {"web"}),
    ({"name": ["["]}, set()),
    ({"label": ["a=b"]}, {"web", "c1", "c2"}),
    ({"label": ["a=c"]}, set()),
    ({"label": ["a", "zz"]}, set()),
    ({"status": ["exited"]}, {"c1"}),
    ({"status": ["exited", "created"]}, {"c1", "c2"}),
    ({"exited": ["3"]}, {"c1"}),
    ({"exited": ["0"]}, set()),
    ({"health": ["healthy"]}, {"web"}),
    ({"health": ["none"]}, {"c1", "c2"}),
    ({"ancestor": ["busybox"]}, {"web", "c1", "c2"}),
    ({"ancestor": ["nothing"]}, set()),
    ({"before": ["c2"]}, {"web", "c1"}),
    ({"since": ["c1"]}, {"c2"}),
    ({"volume": ["v"]}, {"c1"}),
    ({"volume": ["/d"]}, {"c1"}),
    ({"network": ["bridge"]}, {"web", "c1", "c2"}),
    ({"network": ["nnn"]}, {"web", "c1", "c2"}),
    ({"publish": ["8080"]}, {"web"}),
    ({"publish": ["80"]}, set()),
    ({"expose": ["80/tcp"]}, {"web"}),
    ({"expose": ["70-90"]}, {"web"}),
    ({"isolation": ["vm"]}, set()),
    ({"is-task": ["true"]}, set()),
]


@pytest.mark.parametrize(("wanted", "names"), FILTERS)
@pytest.mark.parametrize("old_form", [False, True])
async def test_filters(api: Api, wanted: dict[str, list[str]], names: set[str], old_form: bool) -> None:
    api.engine.containers.add(
        make_container(
            ports={"80/tcp": [PortBinding(host_ip="", host_port="8080")]},
            state=State(
                status=Status.RUNNING, started_at="2026-01-02T03:04:05.000000000Z", health=Health(status="healthy")
            ),
        )
    )
    ended = State(status=Status.EXITED, exit_code=3, started_at="2026-01-02T03:04:05.000000000Z")
    mounts = [MountPoint(type="volume", name="v", source="/s", destination="/d")]
    api.engine.containers.add(make_container(1, state=ended, mounts=mounts))
    api.engine.containers.add(make_container(2, state=State()))
    sent: object = {name: dict.fromkeys(values, True) for name, values in wanted.items()} if old_form else wanted
    query = quote(msgspec.json.encode(sent).decode())
    status, rows = await api.call("GET", f"/containers/json?all=1&filters={query}")
    assert status == 200
    assert {row["Names"][0][1:] for row in rows} == names


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (filters(nonsense=["x"]), 400),
        (filters(status=["asleep"]), 400),
        (filters(health=["fine"]), 400),
        (filters(exited=["x"]), 400),
        (filters(publish=["x"]), 400),
        (filters(publish=["9-5"]), 400),
        (filters(before=["none"]), 404),
        ("notjson", 400),
        ("[]", 400),
        (quote('{"id":5}'), 400),
    ],
)
async def test_bad_filters(api: Api, query: str, status: int) -> None:
    code, answer = await api.call("GET", f"/containers/json?filters={query}")
    assert code == status
    assert answer["message"]


async def test_a_limit_that_is_no_number(api: Api) -> None:
    assert (await api.call("GET", "/containers/json?limit=x"))[0] == 400


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("stop?t=3&signal=SIGINT", ("stop", "web", ("signal", "SIGINT"), ("timeout", 3.0))),
        ("stop", ("stop", "web", ("signal", None), ("timeout", None))),
        ("restart?t=0", ("restart", "web", ("signal", None), ("timeout", 0.0))),
        ("kill", ("kill", "web", "SIGKILL")),
        ("kill?signal=9", ("kill", "web", "9")),
        ("pause", ("pause", "web")),
        ("unpause", ("unpause", "web")),
        ("rename?name=/new", ("rename", "web", "new")),
    ],
)
async def test_verbs(api: Api, path: str, call: tuple[object, ...]) -> None:
    assert await api.call("POST", f"/containers/web/{path}") == (204, b"")
    assert api.engine.containers.calls == [call]


async def test_start_of_a_running_container_changes_nothing(api: Api) -> None:
    assert await api.call("POST", "/containers/web/start") == (304, b"")


@pytest.mark.parametrize("error", [NotFound("exec: x: no such file"), PermissionDenied("exec: x: denied")])
async def test_a_command_that_cannot_run_is_a_bad_request(api: Api, error: Exception) -> None:
    api.engine.containers.fail = error
    status, answer = await api.call("POST", "/containers/web/start")
    assert status == 400
    assert str(error) in answer["message"]


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "pause", "wait", "resize?h=1&w=1", "attach", "exec"])
async def test_unknown_containers(api: Api, verb: str) -> None:
    body = {"Cmd": ["x"]} if verb == "exec" else None
    assert await api.call("POST", f"/containers/none/{verb}", json=body) == (
        404,
        {"message": "No such container: none"},
    )


async def test_remove(api: Api) -> None:
    assert (await api.call("DELETE", "/containers/web?force=1&v=true"))[0] == 204
    assert api.engine.containers.calls == [("remove", "web", ("force", True), ("volumes", True))]
    assert (await api.call("DELETE", "/containers/web?link=1"))[0] == 501
    api.engine.containers.fail = Conflict("it runs")
    assert (await api.call("DELETE", "/containers/web"))[0] == 409


async def test_update_changes_what_is_given(api: Api) -> None:
    wanted = {"Memory": 1 << 30, "CpuShares": 0, "Devices": [], "RestartPolicy": {"Name": "always"}}
    assert await api.call("POST", "/containers/web/update", json=wanted) == (200, {"Warnings": []})
    changes = {"memory": 1 << 30, "restart_policy": RestartPolicy(name="always")}
    assert api.engine.containers.calls == [("update", "web", changes)]
    assert (await api.call("POST", "/containers/web/update", json={"Privileged": True}))[0] == 501


async def test_wait_begins_before_it_ends(api: Api) -> None:
    async with api.session.post("http://x/containers/web/wait?condition=next-exit") as answer:
        assert answer.status == 200
        api.engine.containers.waiters[0].set_result(Waited(3, "gone"))
        assert await answer.json() == {"StatusCode": 3, "Error": {"Message": "gone"}}


async def test_resize_and_top(api: Api) -> None:
    assert (await api.call("POST", "/containers/web/resize?h=5&w=7"))[0] == 200
    assert api.engine.containers.calls[-1] == ("resize", "web", TerminalSize(rows=5, columns=7))
    for query in ("", "?h=5", "?h=x&w=1", "?h=-1&w=1", "?h=1&w=70000"):
        assert (await api.call("POST", f"/containers/web/resize{query}"))[0] == 400
    assert (await api.call("GET", "/containers/web/top?ps_args=-o%20pid"))[1]["Titles"] == ["PID", "CMD"]
    assert api.engine.containers.calls[-1] == ("top", ["-o", "pid"])
    assert (await api.call("GET", "/containers/web/top?ps_args=%22"))[0] == 400


async def test_changes_and_prune(api: Api) -> None:
    assert (await api.call("GET", "/containers/web/changes"))[1] == [
        {"Path": "/new", "Kind": 1},
        {"Path": "/old", "Kind": 2},
    ]
    status, answer = await api.call("POST", f"/containers/prune?filters={filters(until=['1h'], label=['a'])}")
    assert (status, answer) == (200, {"ContainersDeleted": [ID], "SpaceReclaimed": 5})
    assert (await api.call("POST", f"/containers/prune?filters={filters(until=['2020-01-01'])}"))[1][
        "ContainersDeleted"
    ] is None
    assert (await api.call("POST", f"/containers/prune?filters={filters(until=['sometime'])}"))[0] == 400


async def test_stats(api: Api) -> None:
    _, shown = await api.call("GET", "/containers/web/stats?stream=0&one-shot=1")
    assert shown["name"] == "/web"
    assert shown["cpu_stats"]["cpu_usage"]["total_usage"] == 5
    assert shown["cpu_stats"]["system_cpu_usage"] > 0
    assert shown["memory_stats"] == {"usage": 7, "stats": {}, "limit": 9}
    assert shown["networks"] == {"eth0": {"rx_bytes": 3}}
    async with api.session.get("http://x/containers/web/stats") as answer:
        first = msgspec.json.decode(await answer.content.readline())
        second = msgspec.json.decode(await asyncio.wait_for(answer.content.readline(), 5))
    assert second["preread"] == first["read"]
    assert second["precpu_stats"] == first["cpu_stats"]


async def test_stats_of_a_stopped_container(api: Api) -> None:
    api.engine.containers.add(make_container(state=State(status=Status.EXITED)))
    status, shown = await api.call("GET", "/containers/web/stats?stream=0")
    assert (status, shown["read"]) == (200, "0001-01-01T00:00:00Z")


def test_every_refused_field_is_a_field() -> None:
    from bastide.api.docker import container_request

    names = {field.encode_name for field in msgspec.structs.fields(HostConfig)}
    assert set(container_request.REFUSED) <= names
    assert {field.name for field in msgspec.structs.fields(HostConfig)} >= container_request.UPDATABLE

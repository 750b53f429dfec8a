"""docker-py, the Python library that much else is built on."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker as library
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import Healthcheck, LogConfig, Mount, Ulimit
from tests.clients.conftest import Docker


@pytest.fixture
def client(docker: Docker) -> Iterator[Any]:
    made = library.DockerClient(base_url=docker.host, timeout=60)
    yield made
    made.close()


def test_it_speaks_the_newest_version_that_both_know(client: Any) -> None:
    assert client.ping()
    assert client.version()["Os"] == "linux"
    assert client.info()["ContainersRunning"] == 0


def test_run(client: Any) -> None:
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    assert client.containers.run("busybox", "sh -c 'echo err >&2'", remove=True, stderr=True, stdout=False) == b"err\n"


def test_a_failed_run(client: Any) -> None:
    with pytest.raises(ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert caught.value.exit_status == 3
    assert b"why" in caught.value.stderr


def test_errors_have_their_class(client: Any) -> None:
    with pytest.raises(NotFound):
        client.containers.get("nothing-here")
    with pytest.raises(ImageNotFound):
        client.images.get("nothing-here")
    with pytest.raises(NotFound):
        client.networks.get("nothing-here")
    with pytest.raises(NotFound):
        client.volumes.get("nothing-here")
    client.containers.create("busybox", name="taken")
    with pytest.raises(APIError) as caught:
        client.containers.create("busybox", name="taken")
    assert caught.value.status_code == 409


def test_many_options(client: Any) -> None:
    made = client.containers.create(
        "busybox",
        ["sleep", "1000"],
        name="full",
        hostname="here",
        environment={"A": "b"},
        labels={"k": "v"},
        cap_add=["NET_ADMIN"],
        dns=["10.1.1.1"],
        extra_hosts={"db": "10.1.2.3"},
        mem_limit="64m",
        nano_cpus=500_000_000,
        pids_limit=100,
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
        log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 3},
        healthcheck=Healthcheck(test=["CMD", "true"], interval=1_000_000_000),
        mounts=[Mount("/t", None, type="tmpfs"), Mount("/v", "vol")],
        ports={"80/tcp": ("127.0.0.1", None)},
        tmpfs={"/scratch": "size=1m"},
        shm_size="8m",
        read_only=True,
        init=True,
        stop_signal="SIGINT",
        sysctls={"net.ipv4.ip_unprivileged_port_start": "100"},
        user="1000",
        working_dir="/tmp",
    )
    made.start()
    made.reload()
    host = made.attrs["HostConfig"]
    assert made.status == "running"
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 100)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["ReadonlyRootfs"]
    assert made.labels["k"] == "v"
    assert made.ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
    assert made.exec_run("sh -c 'id -u; echo $A'").output == b"1000\nb\n"


def test_life(client: Any) -> None:
    made = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="one")
    made.pause()
    made.reload()
    assert made.status == "paused"
    made.unpause()
    made.restart(timeout=0)
    made.rename("two")
    assert client.containers.get("two").id == made.id
    made.update(mem_limit="128m", memswap_limit="256m")
    assert [container.name for container in client.containers.list(filters={"name": "two"})] == ["two"]
    made.stop(timeout=0)
    assert made.wait()["StatusCode"] == 137
    made.remove()
    assert client.containers.list(all=True) == []


def test_wait_conditions(client: Any) -> None:
    made = client.containers.create("busybox", ["sh", "-c", "sleep 0.3; exit 5"])
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(made.wait(condition="next-exit")))
    waiting.start()
    time.sleep(0.3)
    made.start()
    waiting.join(20)
    assert answers[0]["StatusCode"] == 5


def test_exec(client: Any) -> None:
    made = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    result = made.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (result.exit_code, result.output) == (4, (b"out\n", b"err\n"))
    stream = made.exec_run(["seq", "3"], stream=True)
    assert b"".join(stream.output) == b"1\n2\n3\n"
    identity = client.api.exec_create(made.id, ["cat"], stdin=True)["Id"]
    sock = client.api.exec_start(identity, socket=True)
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"typed")
    raw.shutdown(1)
    data = b""
    while piece := raw.recv(100):
        data += piece
    sock.close()
    assert data == b"\x01\0\0\0\0\0\0\x05typed"
    assert client.api.exec_inspect(identity)["ExitCode"] == 0


def test_attach_socket(client: Any) -> None:
    made = client.containers.create("busybox", ["cat"], stdin_open=True)
    sock = client.api.attach_socket(made.id, {"stdin": 1, "stdout": 1, "stream": 1})
    made.start()
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"line\n")
    assert raw.recv(13) == b"\x01\0\0\0\0\0\0\x05line\n"
    sock.close()
    made.kill()


def test_logs(client: Any) -> None:
    made = client.containers.run("busybox", ["sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.1; done"], detach=True)
    assert list(made.logs(stream=True, follow=True)) == [b"1\n", b"2\n", b"3\n"]
    assert made.logs(tail=1) == b"3\n"
    assert made.logs(timestamps=True).startswith(b"20")


def test_stats_and_top(client: Any) -> None:
    made = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    shown = made.stats(stream=False)
    assert shown["memory_stats"]["usage"] > 0
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    live = made.stats(decode=True)
    assert next(live)["name"] == f"/{made.name}"
    assert next(live)["preread"] > "2000"
    live.close()
    assert "sleep 1000" in made.top()["Processes"][0]


def tar_of(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def test_archives(client: Any) -> None:
    made = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    assert made.put_archive("/tmp", tar_of("file", b"data"))
    pieces, stat = made.get_archive("/tmp/file")
    assert (stat["name"], stat["size"]) == ("file", 4)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        member = tar.extractfile("file")
        assert member is not None
        assert member.read() == b"data"
    assert {"Path": "/tmp/file", "Kind": 1} in made.diff()


def test_networks(client: Any) -> None:
    made = client.networks.create("net", driver="bridge", labels={"a": "b"})
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True, network="net")
    made.reload()
    assert [one.id for one in made.containers] == [container.id]
    other = client.networks.create("other")
    other.connect(container, aliases=["nick"])
    container.reload()
    assert set(container.attrs["NetworkSettings"]["Networks"]) == {"net", "other"}
    other.disconnect(container)
    assert [network.name for network in client.networks.list(names=["other"])] == ["other"]
    other.remove()


def test_volumes(client: Any) -> None:
    made = client.volumes.create("vol", labels={"a": "b"})
    assert client.volumes.get("vol").attrs["Labels"] == {"a": "b"}
    assert [volume.name for volume in client.volumes.list()] == ["vol"]
    made.remove()
    assert client.volumes.prune()["SpaceReclaimed"] == 0


def test_images(client: Any) -> None:
    image = client.images.get("busybox")
    assert image.tag("second", "1")
    assert "second:1" in client.images.get("busybox").tags
    packed = b"".join(client.images.get("second:1").save(named="second:1"))
    client.images.remove("second:1")
    assert client.images.load(packed)[0].tags
    assert client.images.list("second")
    client.images.remove("second:1")


def test_build(client: Any) -> None:
    text = io.BytesIO(b"FROM busybox\nRUN echo built > /built\n")
    image, messages = client.images.build(fileobj=text, tag="built:py", rm=True)
    assert any("Successfully" in message.get("stream", "") for message in messages)
    assert client.containers.run("built:py", ["cat", "/built"], remove=True) == b"built\n"
    client.images.remove(image.id, force=True)


def test_events(client: Any) -> None:
    begun = int(time.time())
    client.containers.run("busybox", ["true"], name="seen", remove=True)
    seen = [
        event["Action"]
        for event in client.events(decode=True, since=begun, until=int(time.time()) + 1, filters={"container": "seen"})
        if event["Type"] == "container" and event["Action"] != "attach"
    ]
    assert seen[:3] == ["create", "start", "die"]


def test_prunes(client: Any) -> None:
    made = client.containers.create("busybox")
    assert client.containers.prune()["ContainersDeleted"] == [made.id]
    assert client.networks.prune()["NetworksDeleted"] in (None, [])
    assert client.images.prune()["SpaceReclaimed"] == 0


def test_df(client: Any) -> None:
    client.containers.create("busybox")
    shown = client.df()
    assert shown["Containers"][0]["Image"] == "busybox"
    assert shown["Images"][0]["Size"] > 0


@pytest.mark.beyond
def test_volumes_of_a_vm(client: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    mounts = [Mount("/one", str(tmp_path / "file"), type="bind", read_only=True), Mount("/memory", None, type="tmpfs")]
    volumes = {"vol": {"bind": "/v", "mode": "rw"}, str(tmp_path): {"bind": "/host", "mode": "ro"}}
    script = "cat /one /host/file; echo; echo kept > /v/x; touch /host/x 2>/dev/null || echo no"
    out = client.containers.run(
        "busybox", ["sh", "-c", script], isolation="vm", remove=True, volumes=volumes, mounts=mounts
    )
    assert out == b"of the hostof the host\nno\n"
    again = client.containers.run(
        "busybox", ["cat", "/v/x"], isolation="vm", remove=True, volumes={"vol": {"bind": "/v"}}
    )
    assert again == b"kept\n"


@pytest.mark.parametrize("isolation", ["container", pytest.param("vm", marks=pytest.mark.beyond)])
def test_files_before_the_start_and_after_the_end(client: Any, isolation: str) -> None:
    chosen = {} if isolation == "container" else {"isolation": isolation}
    made = client.containers.create("busybox", ["sh", "-c", "cat /tmp/given > /tmp/kept"], **chosen)
    assert made.put_archive("/tmp", tar_of("given", b"data"))
    with pytest.raises(NotFound, match="Could not find the file /absent in container"):
        made.put_archive("/absent", tar_of("given", b"data"))
    made.start()
    assert made.wait()["StatusCode"] == 0
    pieces, stat = made.get_archive("/tmp/kept")
    assert (stat["name"], stat["size"]) == ("kept", 4)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.getnames() == ["kept"]
    assert {"Path": "/tmp/kept", "Kind": 1} in made.diff()

"""Every event that docker sends, with its attributes, and the filters of `events`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.clients.conftest import Docker
from tests.clients.raw import Api

CONTAINER = {"image", "name"}
NETWORK = {"container", "name", "type"}


class Heard:
    """What was sent while something was done."""

    def __init__(self, docker: Docker, work: Callable[[], object], *flags: str) -> None:
        begun = time.time()
        work()
        window = ("--since", f"{begun:.9f}", "--until", f"{time.time():.9f}")
        rows = docker.ok("events", *window, *flags, "--format", "{{json .}}").splitlines()
        self.events = [json.loads(row) for row in rows]

    def of(self, kind: str) -> list[str]:
        """The actions of one type of object in order."""
        return [event["Action"] for event in self.events if event["Type"] == kind]

    def attributes(self, action: str, kind: str = "container") -> set[str]:
        """The names of the attributes of the first event with this action."""
        return next(
            set(event["Actor"]["Attributes"])
            for event in self.events
            if event["Type"] == kind and event["Action"].startswith(action)
        )


def test_the_life_of_a_container(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    waiting = "trap 'exit 3' TERM; while :; do sleep 0.1; done"

    def work() -> None:
        docker("create", "--name", "one", "busybox", "sh", "-c", waiting)
        docker("start", "one")
        docker("rename", "one", "two")
        docker("update", "--memory", "64m", "--memory-swap", "64m", "two")
        docker("pause", "two")
        docker("unpause", "two")
        docker("top", "two")
        docker("cp", str(tmp_path / "file"), "two:/tmp")
        docker("cp", "two:/tmp/file", str(tmp_path / "back"))
        docker("exec", "two", "true")
        docker("exec", "-d", "two", "echo", "a")
        docker.until(lambda: docker.field("two", "{{len .ExecIDs}}") == "0", "the end of the execs")
        docker("export", "-o", str(tmp_path / "all.tar"), "two")
        docker("commit", "--pause=false", "two", "made:1")
        docker("kill", "-s", "WINCH", "two")
        docker("stop", "two")
        docker("restart", "-t", "0", "two")
        docker("rm", "-f", "two")
        docker("rmi", "made:1")

    heard = Heard(docker, work)
    ends = {"die", "stop"}
    actions = [action for action in heard.of("container") if action not in ends]
    assert actions == [
        "create",
        "start",
        "rename",
        "update",
        "pause",
        "unpause",
        "top",
        "extract-to-dir",
        "archive-path",
        "exec_create: true ",
        "exec_start: true ",
        "exec_die",
        "exec_create: echo a",
        "exec_start: echo a",
        "exec_die",
        "export",
        "commit",
        "kill",
        "kill",
        "start",
        "restart",
        "kill",
        "destroy",
    ]
    assert sorted(action for action in heard.of("container") if action in ends) == ["die", "die", "stop"]
    assert heard.of("image") == ["tag", "untag", "delete"]
    for action, more in {
        "create": set(),
        "rename": {"oldName"},
        "exec_create": {"execID"},
        "exec_start": {"execID"},
        "exec_die": {"execID", "exitCode"},
        "commit": {"comment", "imageID", "imageRef"},
        "kill": {"signal"},
        "die": {"execDuration", "exitCode"},
    }.items():
        assert heard.attributes(action) == CONTAINER | more, action


def test_the_size_of_a_terminal(docker: Docker) -> None:
    api = Api(docker.host)

    def work() -> None:
        docker("create", "--name", "term", "-it", "busybox")
        docker("start", "term")
        assert api("POST", "/containers/term/resize?h=30&w=70").status == 200

    heard = Heard(docker, work, "--filter", "container=term")
    assert heard.attributes("resize") == CONTAINER | {"height", "width"}


def test_attaching_and_letting_go(docker: Docker) -> None:
    """By the keys for it, which docker's own command line keeps for itself."""

    def work() -> None:
        docker("run", "-dit", "--name", "shown", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.1; done")
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(30)
            raw.connect(docker.host.removeprefix("unix://"))
            path = "/v1.41/containers/shown/attach?stream=1&stdin=1&stdout=1"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            raw.sendall(head.encode() + b"Content-Length: 0\r\n\r\n")
            seen = b""
            while b"tick" not in seen:
                seen += raw.recv(4096) or pytest.fail(f"{seen!r}")
            raw.sendall(b"\x10\x11")
            while raw.recv(4096):
                pass

    heard = Heard(docker, work, "--filter", "container=shown")
    assert [action for action in heard.of("container") if "tach" in action] == ["attach", "detach"]
    assert heard.attributes("attach") == heard.attributes("detach") == CONTAINER


def test_want_of_memory(docker: Docker) -> None:
    limits = ("--memory", "32m", "--memory-swap", "32m")
    heard = Heard(docker, lambda: docker("run", "--name", "hog", *limits, "busybox", "tail", "/dev/zero", code=137))
    actions = heard.of("container")
    assert actions.index("oom") < actions.index("die")
    assert heard.attributes("oom") == CONTAINER


def test_want_of_memory_of_another_process(docker: Docker) -> None:
    """It is told as it happens, while the container goes on."""
    script = "tail /dev/zero; echo survived; sleep 1000"

    def work() -> None:
        docker("run", "-d", "--name", "hog", "--memory", "32m", "--memory-swap", "32m", "busybox", "sh", "-c", script)
        docker.until(lambda: "survived" in docker("logs", "hog").out, "the other process is killed", seconds=60)
        docker.until(lambda: docker.field("hog", "{{.State.OOMKilled}}") == "true", "the state tells it")

    heard = Heard(docker, work)
    assert "oom" in heard.of("container")
    assert "die" not in heard.of("container")
    assert docker.field("hog", "{{.State.Running}}") == "true"
    docker.ok("restart", "-t", "0", "hog")
    assert docker.field("hog", "{{.State.Running}} {{.State.OOMKilled}}") == "true false"


def test_health(docker: Docker) -> None:
    def work() -> None:
        docker(
            "run", "-d", "--name", "one", "--health-cmd", "true", "--health-interval", "100ms", "busybox", "sleep", "9"
        )
        docker.until(lambda: docker.field("one", "{{.State.Health.Status}}") == "healthy", "health")

    heard = Heard(docker, work)
    actions = heard.of("container")
    assert actions[:6] == [
        "create",
        "start",
        "exec_create: /bin/sh -c true",
        "exec_start: /bin/sh -c true",
        "exec_die",
        "health_status: healthy",
    ]
    assert heard.attributes("exec_die") == CONTAINER | {"execID", "exitCode"}


def test_volumes_and_networks(docker: Docker) -> None:
    def work() -> None:
        docker("volume", "create", "data")
        docker("network", "create", "net")
        docker("run", "-d", "--name", "one", "-v", "data:/data:ro", "--network", "net", "busybox", "sleep", "1000")
        docker("network", "disconnect", "net", "one")
        docker("network", "connect", "net", "one")
        docker("kill", "one")
        docker("wait", "one")
        docker("container", "prune", "-f")
        docker("network", "prune", "-f")
        docker("volume", "prune", "-af")
        docker("volume", "create", "other")
        docker("volume", "rm", "other")
        docker("network", "create", "other")
        docker("network", "rm", "other")

    heard = Heard(docker, work)
    assert heard.of("volume") == ["create", "mount", "unmount", "destroy", "prune", "create", "destroy"]
    assert [action for action in heard.of("network") if action != "disconnect"] == [
        "create",
        "connect",
        "connect",
        "destroy",
        "prune",
        "create",
        "destroy",
    ]
    assert "prune" in heard.of("container")
    assert heard.attributes("mount", "volume") == {"container", "destination", "driver", "propagation", "read/write"}
    assert heard.attributes("unmount", "volume") == {"container", "driver"}
    assert heard.attributes("create", "volume") == {"driver"}
    assert heard.attributes("create", "network") == {"name", "type"}
    assert heard.attributes("connect", "network") == heard.attributes("disconnect", "network") == NETWORK
    for kind in ("volume", "network", "container"):
        assert heard.attributes("prune", kind) == {"reclaimed"}


def test_images(docker: Docker, tmp_path: Path) -> None:
    def work() -> None:
        docker("tag", "busybox", "other:1")
        docker("save", "-o", str(tmp_path / "saved.tar"), "other:1")
        docker("rmi", "other:1")
        docker("load", "-i", str(tmp_path / "saved.tar"))
        docker("rmi", "other:1")
        docker("import", "-", "flat:1", stdin=b"\0" * 10240)
        docker("rmi", "flat:1")
        docker("build", "-q", "-t", "built:1", "-", stdin="FROM busybox\nLABEL x=y")
        docker("rmi", "built:1")
        docker("image", "prune", "-f")
        docker("builder", "prune", "-f")

    heard = Heard(docker, work)
    assert heard.of("image") == [
        *("tag", "save", "untag", "load", "untag"),
        *("tag", "import", "untag", "delete"),
        *("tag", "untag", "delete", "prune"),
    ]
    assert heard.of("builder") == ["prune"]
    assert heard.attributes("save", "image") == heard.attributes("load", "image") == {"name"}
    assert heard.attributes("prune", "builder") == {"reclaimed"}


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["container=one"], {"container"}),
        (["image=busybox"], {"container"}),
        (["image=busybox:latest"], set()),
        (["label=who=me"], {"container"}),
        (["label=who", "label=more"], set()),
        (["volume=data"], {"volume"}),
        (["network=bridge"], {"network"}),
        (["type=container", "type=network"], {"container", "network"}),
        (["event=connect", "event=mount"], {"network", "volume"}),
        (["event=exec_start"], {"container"}),
        (["scope=local"], {"container", "network", "volume"}),
        (["scope=swarm"], set()),
        (["daemon=nobody"], set()),
    ],
    ids=lambda value: " ".join(sorted(value)) or "nothing",
)
def test_filters(docker: Docker, flags: list[str], wanted: set[str]) -> None:
    def work() -> None:
        docker("run", "-d", "--name", "one", "--label", "who=me", "-v", "data:/data", "busybox", "sleep", "1000")
        docker("exec", "one", "true")

    heard = Heard(docker, work, *(word for flag in flags for word in ("--filter", flag)))
    assert {event["Type"] for event in heard.events} - {"image"} == wanted

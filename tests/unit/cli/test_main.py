"""Whole commands against a pretended daemon: requests, output, exit statuses."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.pretender import Pretender, frame, hijack, reply, stream
from tests.unit.cli.conftest import Bastide

import bastide as package
from bastide.cli import commands

IDENTITY = "ab" * 32
CONTAINER: dict[str, Any] = {
    "Id": IDENTITY,
    "Names": ["/web", "/other/link"],
    "Image": "nginx",
    "Command": "nginx -g daemon off;",
    "Created": 0,
    "State": "running",
    "Status": "Up 2 minutes",
    "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"}],
    "Labels": {"b": "2", "a": "1"},
    "HostConfig": {"NetworkMode": "bridge", "Isolation": "vm"},
    "NetworkSettings": {"Networks": {"bridge": {}}},
    "Mounts": [{"Type": "volume", "Name": "data", "Driver": "local"}],
}


def test_ps(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers["GET /containers/json"] = reply([CONTAINER])
    done = bastide("ps", "--filter", "label=a", "--filter", "label=b", "-a")
    header, row = done.out.splitlines()
    assert header.split("   ")[0] == "CONTAINER ID"
    assert row.startswith('abababababab   nginx     "nginx -g daemon off;"   ')
    assert row.endswith(" ago   Up 2 minutes   vm          0.0.0.0:8080->80/tcp   web")
    assert pretender.requests[0].query == {"all": ["1"], "filters": ['{"label":["a","b"]}']}
    assert bastide("ps", "-q").out == "abababababab\n"
    assert bastide("ps", "-q", "--no-trunc").out == f"{IDENTITY}\n"
    assert bastide("ps", "--format", "{{.Names}} {{.Isolation}} {{.Labels}} {{.Mounts}}").out == "web vm a=1,b=2 data\n"
    assert bastide("ps", "--no-trunc", "--format", "{{.Names}}").out == "web,other/link\n"


def test_images(pretender: Pretender, bastide: Bastide) -> None:
    image = {"Id": f"sha256:{IDENTITY}", "RepoTags": ["a:1", "b:2"], "RepoDigests": ["a@sha256:cc"], "Created": 1}
    dangling = {"Id": "sha256:" + "cd" * 32, "RepoTags": None, "RepoDigests": [], "Created": 1, "Size": 1500}
    pretender.answers["GET /images/json"] = reply([image | {"Size": 1_980_000}, dangling])
    lines = bastide("images").out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["a", "1", "abababababab"],
        ["b", "2", "abababababab"],
        ["<none>", "<none>", "cdcdcdcdcdcd"],
    ]
    assert lines[1].endswith("1.98MB")
    assert bastide("images", "--digests", "--format", "{{.Repository}} {{.Digest}}").out.splitlines() == [
        "a sha256:cc",
        "b <none>",
        "<none> <none>",
    ]


def test_run_asks_in_order_and_exits_as_the_command(pretender: Pretender, bastide: Bastide) -> None:
    one = f"/containers/{IDENTITY}"
    pretender.answers |= {
        "POST /containers/create": reply({"Id": IDENTITY, "Warnings": []}, 201),
        f"POST {one}/attach": hijack(lambda channel: channel.sendall(frame(1, b"hi\n"))),
        f"POST {one}/wait": reply({"StatusCode": 42}),
        f"POST {one}/start": reply(None, 204),
    }
    done = bastide("run", "--rm", "--name", "x", "busybox", "true")
    assert (done.code, done.out, done.err) == (42, "hi\n", "")
    asked = pretender.asked()
    assert asked[0] == "POST /containers/create"
    assert asked[-1] == f"POST {one}/start"
    assert set(asked[1:3]) == {f"POST {one}/attach", f"POST {one}/wait"}
    assert pretender.last(f"POST {one}/wait").query == {"condition": ["removed"]}
    assert pretender.requests[0].query == {"name": ["x"]}


def test_run_detached(pretender: Pretender, bastide: Bastide, tmp_path: Path) -> None:
    pretender.answers |= {
        "POST /containers/create": reply({"Id": IDENTITY, "Warnings": []}, 201),
        f"POST /containers/{IDENTITY}/start": reply(None, 204),
    }
    assert bastide("run", "-d", "--cidfile", str(tmp_path / "cid"), "busybox").out == f"{IDENTITY}\n"
    assert (tmp_path / "cid").read_text() == IDENTITY
    again = bastide("run", "-d", "--cidfile", str(tmp_path / "cid"), "busybox")
    assert again.code == 125
    assert "container ID file found" in again.err


def test_run_pulls_what_is_missing(pretender: Pretender, bastide: Bastide) -> None:
    answers = iter([reply({"message": "No such image: a:1"}, 404), reply({"Id": IDENTITY, "Warnings": []}, 201)])
    pretender.answers |= {
        "POST /containers/create": lambda request, channel: next(answers)(request, channel),
        "POST /images/create": stream(
            {"status": "Pulling from library/a", "id": "1"},
            {"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "id": "x", "progress": "[>"},
            {"status": "Pull complete", "progressDetail": {}, "id": "x"},
        ),
        f"POST /containers/{IDENTITY}/start": reply(None, 204),
    }
    done = bastide("run", "-d", "a:1")
    assert done.code == 0
    assert done.err.splitlines() == [
        "Unable to find image 'a:1' locally",
        "1: Pulling from library/a",
        "x: Pull complete",
    ]
    assert pretender.last("POST /images/create").query == {"fromImage": ["a"], "tag": ["1"]}
    pretender.answers["POST /containers/create"] = reply({"message": "No such image: a:1"}, 404)
    done = bastide("run", "--pull", "never", "a:1")
    assert (done.code, done.err) == (125, "bastide: Error response from daemon: No such image: a:1\n")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("open /x: No such file or directory", 127),
        ('exec: "/etc": permission denied', 126),
        ("/etc is a directory", 126),
        ("no more memory", 125),
    ],
)
def test_what_cannot_be_started(pretender: Pretender, bastide: Bastide, message: str, code: int) -> None:
    one = f"/containers/{IDENTITY}"
    pretender.answers |= {
        "POST /containers/create": reply({"Id": IDENTITY}, 201),
        f"POST {one}/attach": hijack(lambda channel: None),
        f"POST {one}/wait": reply({"StatusCode": 0}),
        f"POST {one}/start": reply({"message": message}, 400),
    }
    done = bastide("run", "image")
    assert (done.code, done.err) == (code, f"bastide: Error response from daemon: {message}\n")


def test_exec(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers |= {
        "POST /containers/web/exec": reply({"Id": "e1"}, 201),
        "POST /exec/e1/start": hijack(lambda channel: channel.sendall(frame(1, b"a") + frame(2, b"b"))),
        "GET /exec/e1/json": reply({"ExitCode": 3, "Running": False}),
    }
    done = bastide("exec", "-u", "0", "-w", "/tmp", "-e", "A=b", "web", "ls", "-l")
    assert (done.code, done.out, done.err) == (3, "a", "b")
    assert pretender.requests[0].json == {
        "Cmd": ["ls", "-l"],
        "AttachStdout": True,
        "AttachStderr": True,
        "User": "0",
        "WorkingDir": "/tmp",
        "Env": ["A=b"],
    }
    pretender.answers["POST /exec/e1/start"] = reply({"message": 'exec: "x": executable file not found in $PATH'}, 400)
    assert bastide("exec", "web", "x").code == 127


def test_one_failure_does_not_stop_the_others(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers |= {
        "POST /containers/a/stop": reply(None, 204),
        "POST /containers/b/stop": reply({"message": "No such container: b"}, 404),
        "POST /containers/c/stop": reply(None, 304),
    }
    done = bastide("stop", "-t", "0", "a", "b", "c")
    assert (done.code, done.out) == (1, "a\nc\n")
    assert done.err == "Error response from daemon: No such container: b\n"
    assert pretender.requests[0].query == {"t": ["0"]}


def test_inspect_finds_any_kind(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers |= {
        "GET /containers/web/json": reply({"Id": "1", "Labels": {}, "List": []}),
        "GET /images/team/app:1/json": reply({"Id": "2", "Html": "<&>"}),
    }
    done = bastide("inspect", "web", "team/app:1", "nope")
    assert done.code == 1
    assert done.err == "Error: No such object: nope\n"
    assert done.out == (
        '[\n    {\n        "Id": "1",\n        "Labels": {},\n        "List": []\n    },\n'
        '    {\n        "Id": "2",\n        "Html": "<&>"\n    }\n]\n'
    )
    assert bastide("inspect", "-f", "{{.Id}}", "web").out == "1\n"
    assert bastide("inspect", "-f", "json", "web").out == '[{"Id":"1","Labels":{},"List":[]}]\n'
    bad = bastide("inspect", "-f", "{{.Foo}}", "web")
    assert bad.err.startswith("template parsing error: template: :1:2: executing")
    assert bastide("inspect", "-f", "{{.", "web").code == 64
    assert bastide("inspect", "--type", "image", "nope").out == "[]\n"


def test_logs(pretender: Pretender, bastide: Bastide) -> None:
    data = frame(1, b"out\n") + frame(2, b"err\n")
    pretender.answers |= {
        "GET /containers/web/json": reply({"Id": IDENTITY, "Config": {"Tty": False}}),
        f"GET /containers/{IDENTITY}/logs": reply(data),
    }
    done = bastide("logs", "-n", "5", "-t", "--since", "100", "web")
    assert (done.out, done.err) == ("out\n", "err\n")
    wanted = pretender.last(f"GET /containers/{IDENTITY}/logs").query
    assert wanted == {"stdout": ["1"], "stderr": ["1"], "timestamps": ["1"], "tail": ["5"], "since": ["100"]}


def test_names_cannot_leave_their_place_in_a_path(pretender: Pretender, bastide: Bastide) -> None:
    bastide("start", "../images/x")
    bastide("start", "..")
    bastide("inspect", "--type", "container", "a?b#c d")
    assert pretender.asked() == [
        "POST /containers/../images/x/start",
        "POST /containers/../start",
        "GET /containers/a?b#c d/json",
    ]  # unquoted by the pretender: what was one segment came as one
    raw = package.client.segment
    assert raw("../images/x") == "..%2Fimages%2Fx"
    assert raw("..") == "%2E%2E"


def test_an_error_within_a_pull(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers["POST /images/create"] = stream(
        {"status": "Pulling"}, {"errorDetail": {"message": "layer is\nbroken"}, "error": "layer is broken"}
    )
    done = bastide("pull", "a")
    assert (done.code, done.err) == (1, "layer is broken\n")
    assert done.out == "Using default tag: latest\nPulling\n"
    assert bastide("pull", "A b").err == "invalid reference format: repository name (library/A b) must be lowercase\n"


def test_escapes_of_the_daemon_do_not_break_the_line(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers["POST /containers/a/start"] = reply({"message": "bad\nname"}, 500)
    assert bastide("start", "a").err.splitlines()[0] == "Error response from daemon: bad name"


def test_prune_asks_first(pretender: Pretender, bastide: Bastide, monkeypatch: pytest.MonkeyPatch) -> None:
    pretender.answers["POST /containers/prune"] = reply({"ContainersDeleted": ["x"], "SpaceReclaimed": 1500})
    monkeypatch.setattr(os, "read", lambda _descriptor, _size: b"n\n")
    done = bastide("container", "prune")
    assert done.out.startswith("WARNING! This will remove all stopped containers.")
    assert pretender.requests == []
    done = bastide("container", "prune", "-f", "--filter", "until=24h")
    assert done.out == "Deleted Containers:\nx\n\nTotal reclaimed space: 1.5kB\n"
    assert pretender.requests[0].query == {"filters": ['{"until":["24h"]}']}


def test_cp_out_and_in(pretender: Pretender, bastide: Bastide, tmp_path: Path) -> None:
    import base64
    import json

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        info = tarfile.TarInfo("conf")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
        info = tarfile.TarInfo("conf/a")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))

    def send(request: Any, channel: Any) -> None:
        stat = base64.b64encode(json.dumps({"name": "conf", "mode": 1 << 31, "linkTarget": ""}).encode()).decode()
        data = b"" if request.method == "HEAD" else content.getvalue()
        head = f"HTTP/1.1 200 OK\r\nX-Docker-Container-Path-Stat: {stat}\r\nContent-Length: {len(data)}\r\n\r\n"
        channel.sendall(head.encode() + data)

    one = "/containers/web/archive"
    pretender.answers |= {f"GET {one}": send, f"HEAD {one}": send, f"PUT {one}": reply(None)}
    assert bastide("cp", "web:/etc/conf", str(tmp_path / "new")).code == 0
    assert (tmp_path / "new" / "a").read_text() == "abc"
    (tmp_path / "there").mkdir()
    assert bastide("cp", "web:/etc/conf", str(tmp_path / "there")).code == 0
    assert (tmp_path / "there" / "conf" / "a").read_text() == "abc"
    assert bastide("cp", "web:/etc/conf/.", str(tmp_path / "there")).code == 0
    assert (tmp_path / "there" / "a").read_text() == "abc"
    assert bastide("cp", str(tmp_path / "new"), "web:/srv").code == 0
    with tarfile.open(fileobj=io.BytesIO(pretender.last(f"PUT {one}").body)) as tar:
        assert tar.getnames() == ["new", "new/a"]
    assert bastide("cp", "web:/a", "web:/b").err == "copying between containers is not supported\n"
    assert bastide("cp", "a", "b").err == "must specify at least one container source\n"


@pytest.mark.parametrize(
    ("words", "code", "first"),
    [
        (["foo"], 1, "bastide: unknown command: bastide foo"),
        (["container", "foo"], 1, "bastide: unknown command: bastide container foo"),
        (["run", "--foo"], 125, "unknown flag: --foo"),
        (["ps", "--foo"], 125, "unknown flag: --foo"),
        (["rm"], 1, "bastide: 'bastide rm' requires at least 1 argument"),
        (["run", "-p", "99999:1", "x"], 125, "bastide: invalid hostPort: 99999"),
        (["--context", "x", "ps"], 125, "bastide: docker's contexts are not used: name the daemon with --host"),
        (["-H", "foo://x", "ps"], 1, "unable to parse docker host `foo://x`: use unix://, tcp:// or ssh://"),
        (["--foo", "ps"], 125, "bastide: unknown flag: --foo"),
    ],
)
def test_misuse(bastide: Bastide, words: list[str], code: int, first: str) -> None:
    done = bastide(*words)
    assert (done.code, done.err.splitlines()[0], done.out) == (code, first, "")
    assert len(done.err.splitlines()) <= 2


def test_no_daemon(bastide: Bastide, tmp_path: Path) -> None:
    done = bastide("-H", f"unix://{tmp_path}/none", "ps")
    assert done.code == 1
    assert done.err == (
        f"Cannot connect to the bastide daemon at unix://{tmp_path}/none: No such file or directory. Is it running?\n"
    )
    assert bastide("-H", f"unix://{tmp_path}/none", "run", "x").code == 125


def test_version_without_a_daemon(bastide: Bastide, tmp_path: Path) -> None:
    assert bastide("--version").out == f"bastide version {package.__version__}\n"
    done = bastide("-H", f"unix://{tmp_path}/none", "version")
    assert done.code == 1
    assert done.out.startswith("Client:\n Version:")


@pytest.mark.parametrize("name", sorted(commands.COMMANDS))
def test_every_command_can_be_loaded(name: str) -> None:
    command = commands.load(name)
    longs = [flag[0] for flag in command.flags]
    shorts = [flag[1] for flag in command.flags if flag[1]]
    assert len(set(longs)) == len(longs)
    assert len(set(shorts)) == len(shorts)
    assert all(target in commands.COMMANDS for target in commands.ALIASES.values())


def test_the_hot_path_imports_next_to_nothing() -> None:
    """Each of these costs milliseconds that `exec` and `run` do not have."""
    heavy = {"argparse", "asyncio", "collections", "contextlib", "enum", "functools", "http", "json", "logging"}
    heavy |= {
        "msgspec",
        "os",
        "pathlib",
        "re",
        "rich",
        "signal",
        "site",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "typing",
    }
    root = str(Path(package.__file__).parents[1])
    program = (
        f"import sys; sys.path.insert(0, {root!r}); import bastide.cli.main, bastide.cli.verbs.run,"
        "bastide.cli.verbs.exec, bastide.cli.verbs.ps, bastide.cli.streams, bastide.client.containers,"
        "bastide.client.execs; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_every_module_is_importable_alone() -> None:
    for path in sorted((Path(package.__file__).parent / "cli").rglob("*.py")):
        parts = path.relative_to(Path(package.__file__).parents[1]).with_suffix("").parts
        if parts[-1] != "__main__":
            importlib.import_module(".".join(parts).removesuffix(".__init__"))


def test_contexts_are_ignored_aloud(
    pretender: Pretender, bastide: Bastide, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    pretender.answers["GET /containers/json"] = reply([])
    assert bastide("ps", "-q").err == ""  # BASTIDE_HOST was given: there is no doubt
    monkeypatch.delenv("BASTIDE_HOST")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("BASTIDE_RUN_ROOT", str(tmp_path / "nowhere"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = bastide("ps", "-q")
    assert done.err.splitlines()[0] == "DOCKER_CONTEXT is ignored: name the daemon with BASTIDE_HOST or DOCKER_HOST"
    assert "Is it running?" in done.err.splitlines()[1]
    assert not (tmp_path / "nowhere").exists()


SAMPLE: dict[str, Any] = {
    "name": "/web",
    "id": IDENTITY,
    "read": "2026-11-24T10:00:00Z",
    "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    "memory_stats": {"usage": 3 << 20, "limit": 12 << 20, "stats": {"inactive_file": 1 << 20}},
    "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 0}, "eth1": {"rx_bytes": 500, "tx_bytes": 7}},
    "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 4000}, {"op": "Write", "value": 5}]},
    "pids_stats": {"current": 3},
}


def test_stats(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers |= {
        "GET /containers/json": reply([CONTAINER]),
        f"GET /containers/{IDENTITY}/stats": reply(SAMPLE),
        "GET /containers/web/stats": stream(
            *[SAMPLE | {"read": f"2026-11-24T10:00:0{second}Z"} for second in range(4)]
        ),
    }
    done = bastide("stats", "--no-stream")
    row = "abababababab web 40.00% 2MiB / 12MiB 16.67% 2kB / 7B 4kB / 5B 3"
    assert " ".join(done.out.splitlines()[1].split()) == row
    form = "{{.Container}} {{.CPUPerc}} {{.PIDs}}"
    assert set(bastide("stats", "--format", form, "web").out.splitlines()) <= {"web 40.00% 3", "web -- --"}
    assert bastide("stats", "nope").err == "Error response from daemon: page not found: /containers/nope/stats\n"


def test_answers_that_make_no_sense(pretender: Pretender, bastide: Bastide) -> None:
    pretender.answers |= {
        "GET /containers/json": reply([{"no": "id"}]),
        "GET /events": reply(b"<html>\n"),
        "POST /containers/create": reply({}),
        "GET /info": lambda _request, channel: channel.shutdown(2),
    }
    for words, code in (("ps",), 1), (("events",), 1), (("run", "x"), 125):
        done = bastide(*words)
        assert done.code == code
        assert done.err.startswith("bastide: unexpected ")
        assert len(done.err.splitlines()) == 1
    assert bastide("info").err == "the daemon closed the connection without an answer: look at its log\n"
    with pytest.raises(KeyError):
        bastide("--debug", "ps")

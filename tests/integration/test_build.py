"""Builds beyond what one Dockerfile makes: caches, stages at once, secrets, ends that come too early."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.building import build, context, read, send
from tests.clients.raw import Api
from tests.dockerfiles import Case, cases
from tests.living import Daemon, mounts_below, processes_with
from tests.registry import free_port


@pytest.fixture(autouse=True)
def nothing_left(daemon: Daemon) -> Iterator[None]:
    """After every build: no container, no mount, no context."""
    yield
    assert not daemon.ok("ps", "-aq")
    assert not [place for place in mounts_below(daemon.base) if "build" in place]
    for kind in ("contexts", "scratch"):
        folder = daemon.data / "build" / kind
        assert not folder.is_dir() or not list(folder.iterdir())


def test_steps_are_told_as_docker_tells_them(daemon: Daemon) -> None:
    done = build(daemon, "FROM busybox\nENV A=1\nRUN echo out; echo err >&2\n", nocache="1", t="told").ok()
    lines = [line for line in done.text.splitlines() if line]
    assert lines[0] == "Step 1/3 : FROM busybox"
    assert lines[2] == "Step 2/3 : ENV A=1"
    assert any(line.startswith(" ---> Running in ") for line in lines)
    assert "\x1b[91merr\n\x1b[0m" in done.text
    assert lines[-2:] == [f"Successfully built {done.id[7:19]}", "Successfully tagged told:latest"]
    assert daemon.ok("inspect", "--type=image", "--format={{.Id}}", "told") == done.id


def test_a_failed_step_says_its_code_and_leaves_no_image(daemon: Daemon) -> None:
    before = daemon.ok("images", "-aq")
    done = build(daemon, "FROM busybox\nRUN exit 42\n", t="never")
    assert (done.status, done.code) == (200, 42)
    assert done.error == "The command '/bin/sh -c exit 42' returned a non-zero code: 42"
    assert daemon.ok("images", "-aq") == before


def test_what_is_wrong_before_the_first_step_is_an_answer_of_its_own(daemon: Daemon) -> None:
    for dockerfile, status in (("FOO\n", 400), ("FROM busybox\nRUN --mount=type=x,target=/y true\n", 200)):
        done = build(daemon, dockerfile)
        assert done.status == status
        assert done.error
    assert build(daemon, "FROM busybox\n", version="2").status == 501
    assert build(daemon, "FROM busybox\n", t="UPPER").status == 400
    missing = send(daemon, context({"Dockerfile": "FROM busybox\n"}), dockerfile="missing")
    assert missing.error == "Cannot locate specified Dockerfile: missing"


def test_the_cache_survives_a_restart_and_sees_every_change(daemon: Daemon) -> None:
    dockerfile = "FROM busybox\nCOPY f /f\nRUN head -c 16 /dev/urandom | od -x > /random\n"
    first = build(daemon, dockerfile, {"f": "1"}).ok()
    daemon.stop()
    daemon.start()
    again = build(daemon, dockerfile, {"f": "1"}).ok()
    assert again.id == first.id
    assert again.text.count("Using cache") == 2
    assert build(daemon, dockerfile, {"f": "2"}).ok().id != first.id
    assert build(daemon, dockerfile, {"f": "1"}, nocache="1").ok().id != first.id
    assert build(daemon, dockerfile.replace("-x", "-d"), {"f": "1"}).ok().text.count("Using cache") == 1


def test_times_of_files_do_not_miss_the_cache(daemon: Daemon) -> None:
    first = build(daemon, "FROM busybox\nCOPY f /f\n", {"f": "same"}).ok()
    info = tarfile.TarInfo("empty")
    info.mtime = time.time()
    second = build(daemon, "FROM busybox\nCOPY f /f\n", {"f": "same", "empty": info}).ok()
    assert second.id == first.id


def test_arguments_and_variables_that_read_alike_are_told_apart(daemon: Daemon) -> None:
    made = set()
    for line in ("ENV A=b C=d", 'ENV A="b C=d"', "ENV A=b\\ C=d"):
        done = build(daemon, f"FROM busybox\n{line}\nRUN env | grep -v HOSTNAME | sort > /env\n").ok()
        made.add(read(daemon, done.id, "/env"))
    assert len(made) == 2


def test_stages_run_at_once_and_speak_in_order(daemon: Daemon) -> None:
    stages = "".join(f"FROM busybox AS s{n}\nRUN sleep 1.5; echo said-{n} > /s{n}; echo said-{n}\n" for n in range(3))
    copies = "".join(f"COPY --from=s{n} /s{n} /\n" for n in range(3))
    begun = time.monotonic()
    done = build(daemon, f"{stages}FROM busybox\n{copies}", nocache="1").ok()
    assert time.monotonic() - begun < 4.0
    assert done.text.index("said-0") < done.text.index("said-1") < done.text.index("said-2")
    numbers = [int(line.split("/")[0][5:]) for line in done.text.splitlines() if line.startswith("Step ")]
    assert numbers == list(range(1, 11))


def test_a_stage_that_fails_ends_the_others(daemon: Daemon) -> None:
    begun = time.monotonic()
    done = build(
        daemon, "FROM busybox AS a\nRUN sleep 60\nFROM busybox\nRUN exit 3\nCOPY --from=a /x /x\n", nocache="1"
    )
    assert done.code == 3
    assert time.monotonic() - begun < 30


def test_triggers_run_in_the_image_built_on_it(daemon: Daemon) -> None:
    build(daemon, "FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cat /f /f > /ff\n", t="triggers").ok()
    done = build(daemon, "FROM triggers\nRUN cat /ff\n", {"f": "x"}).ok()
    assert "# Executing 2 build triggers" in done.text
    assert read(daemon, done.id, "/ff") == "xx"
    assert json.loads(daemon.ok("inspect", "--type=image", done.id))[0]["Config"]["OnBuild"] is None


def test_squash(daemon: Daemon) -> None:
    dockerfile = (
        "FROM busybox\nRUN mkdir /d && echo old > /d/old && echo x > /gone && rm -r /home\n"
        "RUN rm /gone && rm -r /d && mkdir /d && echo new > /d/new\nENV A=1\n"
    )
    plain, squashed = build(daemon, dockerfile).ok(), build(daemon, dockerfile, squash="1").ok()
    trees = [
        daemon.ok("run", "--rm", "--network=none", i, "find", "/d", "/etc", "/tmp") for i in (plain.id, squashed.id)
    ]
    assert trees[0] == trees[1]
    for path in ("/gone", "/d/old", "/home"):
        assert daemon.cli("run", "--rm", "--network=none", squashed.id, "ls", path).returncode
    layers = [
        json.loads(daemon.ok("inspect", "--type=image", i))[0]["RootFS"]["Layers"] for i in (plain.id, squashed.id)
    ]
    assert [len(found) for found in layers] == [3, 2]


def test_cache_from_an_image(daemon: Daemon) -> None:
    dockerfile = "FROM busybox\nRUN head -c 16 /dev/urandom | od -x > /r\nCOPY f /f\n"
    first = build(daemon, dockerfile, {"f": "f"}, t="warm").ok()
    daemon.ok("builder", "prune", "--all", "--force")
    again = build(daemon, dockerfile, {"f": "f"}, cachefrom=["warm", "no-such-image"]).ok()
    assert again.text.count("Using cache") == 2
    assert read(daemon, again.id, "/r") == read(daemon, first.id, "/r")


def test_prune_frees_what_no_image_has(daemon: Daemon) -> None:
    done = build(daemon, "FROM busybox\nRUN head -c 3000000 /dev/zero > /zeros\n", t="zeros").ok()
    daemon.ok("rmi", "zeros")
    api = Api(f"unix://{daemon.socket}")
    answer = api.ok("POST", "/build/prune")
    assert answer["SpaceReclaimed"] >= 3_000_000
    assert answer["CachesDeleted"]
    again = build(daemon, "FROM busybox\nRUN head -c 3000000 /dev/zero > /zeros\n").ok()
    assert "Using cache" not in again.text
    assert again.id != done.id


def test_a_cache_mount_outlives_builds_and_stays_out_of_layers(daemon: Daemon) -> None:
    line = "RUN --mount=type=cache,id=counter,target=/c echo x >> /c/n && wc -l < /c/n > /count"
    assert read(daemon, build(daemon, f"FROM busybox\n{line}\n", nocache="1").ok().id, "/count") == "1"
    done = build(daemon, f"FROM busybox\n{line}\n", nocache="1").ok()
    assert read(daemon, done.id, "/count") == "2"
    assert daemon.cli("run", "--rm", "--network=none", done.id, "ls", "/c").returncode
    daemon.ok("builder", "prune", "--all", "--force")
    assert read(daemon, build(daemon, f"FROM busybox\n{line}\n", nocache="1").ok().id, "/count") == "1"


def test_a_locked_cache_mount_is_for_one_at_a_time(daemon: Daemon) -> None:
    step = "RUN --mount=type=cache,id=lock,sharing=locked,target=/c mkdir /c/held && sleep 0.5 && rmdir /c/held"
    dockerfile = f"FROM busybox AS a\n{step}\nFROM busybox AS b\n{step}\nRUN touch /b\nFROM a\nCOPY --from=b /b /b\n"
    build(daemon, dockerfile, nocache="1").ok()


def test_locks_of_several_cache_mounts_do_not_wait_in_a_ring(daemon: Daemon) -> None:
    def mounts(*names: str) -> str:
        return " ".join(f"--mount=type=cache,id={name},sharing=locked,target=/{n}" for n, name in enumerate(names))

    stages = "".join(
        f"FROM busybox AS s{number}\nRUN {mounts(*names)} sleep 0.2; touch /s{number}\n"
        for number, names in enumerate((("x", "y"), ("y", "x"), ("x", "x"), ("y", "x")))
    )
    copies = "".join(f"COPY --from=s{number} /s{number} /\n" for number in range(4))
    build(daemon, f"{stages}FROM busybox\n{copies}", nocache="1").ok()


def test_many_stages_that_take_from_one_at_once(daemon: Daemon) -> None:
    stages = "".join(f"FROM busybox AS s{n}\nCOPY --from=one /one /s{n}\nRUN test -e /s{n}\n" for n in range(6))
    copies = "".join(f"COPY --from=s{n} /s{n} /\n" for n in range(6))
    build(daemon, f"FROM busybox AS one\nRUN touch /one\n{stages}FROM busybox\n{copies}", nocache="1").ok()


# -- secrets (ATTACKS 31) ------------------------------------------------------------------------------


def test_a_secret_is_seen_by_its_step_and_by_nothing_else(daemon: Daemon, tmp_path: Path) -> None:
    value = f"secret-{os.urandom(8).hex()}"
    (tmp_path / "token").write_text(value)
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=secret,id=token,mode=0440,uid=1000 cat /run/secrets/token | wc -c > /size; "
        "ls -ln /run/secrets/token | cut -c1-10 > /mode\n"
        "RUN --mount=type=secret,id=token,target=/etc/deep/er/key test -s /etc/deep/er/key\n"
        "RUN test ! -e /run/secrets && test ! -e /etc/deep\n"
    )
    (tmp_path / ".dockerignore").write_text("token\n")
    words = ("build", "--no-cache", "--network=none", "--tag=secretive", f"--secret=id=token,src={tmp_path / 'token'}")
    said = daemon.cli(*words, str(tmp_path), check=True)
    assert read(daemon, "secretive", "/size") == str(len(value))
    assert read(daemon, "secretive", "/mode") == "-r--r-----"
    archive = tmp_path / "saved.tar"
    daemon.ok("save", "--output", str(archive), "secretive")
    with tarfile.open(archive) as outer:
        for member in outer.getmembers():
            if member.isfile():
                file = outer.extractfile(member)
                assert file is not None
                assert value.encode() not in unpacked(file.read())
    told = said.stdout + said.stderr + daemon.ok("history", "--no-trunc", "secretive") + daemon.log.read_text()
    assert value not in told
    assert value not in daemon.ok("inspect", "--type=image", "secretive")
    found = subprocess.run(["grep", "-rla", value, str(daemon.base)], capture_output=True, check=False)
    assert found.stdout == b"", "no file of the daemon holds it"


def unpacked(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def test_a_required_secret_that_is_missing(daemon: Daemon) -> None:
    done = build(daemon, "FROM busybox\nRUN --mount=type=secret,id=absent,required=true true\n")
    assert "secret absent: not found" in done.error


def test_secrets_are_taken_once(daemon: Daemon) -> None:
    api = Api(f"unix://{daemon.socket}")
    word = api.ok("POST", "/build/secrets", {"a": "dmFsdWU="})["Id"]
    dockerfile = "FROM busybox\nRUN --mount=type=secret,id=a cat /run/secrets/a > /copy\n"
    assert read(daemon, build(daemon, dockerfile, secrets=word, nocache="1").ok().id, "/copy") == "value"
    assert build(daemon, dockerfile, secrets=word).status == 404


def test_an_agents_socket(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        agent.listen(1)
        dockerfile = 'FROM busybox\nRUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && echo "$SSH_AUTH_SOCK" > /where\n'
        done = build(daemon, dockerfile, ssh=f"default={path}").ok()
    assert read(daemon, done.id, "/where") == "/run/buildkit/ssh_agent.0"
    assert "SSH_AUTH_SOCK" not in daemon.ok("inspect", "--type=image", done.id)


# -- files from elsewhere ------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A small HTTP server over a folder with `file.txt` and `Dockerfile`; gives its address."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "file.txt").write_text("from the web\n")
    (folder / "Dockerfile").write_text("FROM busybox\nLABEL from=web\n")
    os.utime(folder / "file.txt", (1_500_000_000, 1_500_000_000))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_add_of_a_url(daemon: Daemon, web: str) -> None:
    digest = "sha256:" + hashlib.sha256(b"from the web\n").hexdigest()
    dockerfile = f"FROM busybox\nADD --checksum={digest} {web}/file.txt /a/\nADD {web}/file.txt?x=1 /b\n"
    done = build(daemon, dockerfile).ok()
    assert read(daemon, done.id, "/a/file.txt") == "from the web"
    shown = daemon.ok("run", "--rm", "--network=none", done.id, "stat", "-c", "%a %Y %u", "/a/file.txt", "/b")
    assert shown.splitlines() == ["600 1500000000 0"] * 2
    wrong = build(daemon, f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {web}/file.txt /a\n")
    assert "digest mismatch" in wrong.error
    assert "404" in build(daemon, f"FROM busybox\nADD {web}/missing /a\n").error
    assert "failed to load" in build(daemon, "FROM busybox\nADD http://127.0.0.1:1/x /a\n").error


def test_a_context_from_the_web(daemon: Daemon, web: str) -> None:
    done = daemon.ok("build", "--quiet", f"{web}/Dockerfile")
    assert json.loads(daemon.ok("inspect", "--type=image", done))[0]["Config"]["Labels"] == {"from": "web"}


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """A git server on loopback with one repository; gives its URL."""
    work = tmp_path / "git" / "app.git"
    (work / "inner").mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM busybox\nCOPY f /f\n")
    (work / "f").write_text("main\n")
    (work / "inner" / "Dockerfile").write_text("FROM busybox\nCOPY . /all\n")
    (work / "inner" / "link").symlink_to("/etc/passwd")
    (work / "out").symlink_to("/etc")
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "first"], ["branch", "other"]):
        subprocess.run(["git", *words], cwd=work, check=True, env=os.environ | who)
    port = free_port()
    server = subprocess.Popen(
        [
            "git",
            "daemon",
            "--reuseaddr",
            "--export-all",
            "--listen=127.0.0.1",
            f"--port={port}",
            f"--base-path={tmp_path / 'git'}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert server.poll() is None
        time.sleep(0.05)
    try:
        yield f"git://127.0.0.1:{port}/app.git"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)


def test_git(daemon: Daemon, repository: str) -> None:
    assert read(daemon, daemon.ok("build", "--quiet", repository), "/f") == "main"
    made = daemon.ok("build", "--quiet", f"{repository}#other:inner")
    assert daemon.ok("run", "--rm", "--network=none", made, "ls", "/all").split() == ["Dockerfile", "link"]
    done = build(daemon, f"FROM busybox\nADD {repository}#main /src\n").ok()
    assert daemon.ok("run", "--rm", "--network=none", done.id, "ls", "-A", "/src").split() == sorted(
        ["Dockerfile", "f", "inner", "out"]
    )
    for wrong in (
        f"{repository}#none",
        f"{repository}#main:missing",
        f"{repository}#main:out",
        f"{repository}#--upload-pack=x",
    ):
        assert daemon.cli("build", "--quiet", wrong).returncode


# -- ends that come too early (ATTACKS 38) -------------------------------------------------------------

SLEEP = f"sleep {100_000_000 + os.getpid()}"
"""A command that no other process of the host runs."""
SLOW = f"FROM busybox\nRUN --mount=type=cache,id=slow,target=/c echo begun > /f && {SLEEP}\n"


def started(daemon: Daemon) -> str:
    """Wait for a build's container; gives its id."""
    deadline = time.monotonic() + 30
    while not (found := daemon.ok("ps", "-q")):
        assert time.monotonic() < deadline, "the step did not start"
        time.sleep(0.05)
    return found


def begin(daemon: Daemon) -> socket.socket:
    """A build under way on a connection of its own."""
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(str(daemon.socket))
    body = context({"Dockerfile": SLOW})
    head = f"POST /build?networkmode=none&t=half HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    channel.sendall(head.encode() + b"Content-Type: application/x-tar\r\n\r\n" + body)
    return channel


def test_a_client_that_goes_away_ends_its_build(daemon: Daemon) -> None:
    channel = begin(daemon)
    started(daemon)
    channel.close()
    deadline = time.monotonic() + 30
    while daemon.ok("ps", "-aq") or [place for place in mounts_below(daemon.base) if "build" in place]:
        assert time.monotonic() < deadline, "the build goes on without its client"
        time.sleep(0.1)
    assert not daemon.ok("images", "-q", "half")


def test_a_daemon_that_is_killed_leaves_nothing_of_a_build(daemon: Daemon) -> None:
    with begin(daemon):
        started(daemon)
        daemon.stop(signal.SIGKILL)
    daemon.start()
    assert not daemon.ok("ps", "-aq")
    assert not daemon.ok("images", "-q", "half")
    assert not processes_with([SLEEP])
    done = build(daemon, SLOW.replace(f" && {SLEEP}", "")).ok()
    assert read(daemon, done.id, "/f") == "begun"


def test_builds_that_are_cut_off_anywhere_leave_nothing_half_made(daemon: Daemon) -> None:
    """SIGKILL at random points: the next start finds no remains, and the next build completes."""
    chance = random.Random(4)
    dockerfile = (
        "FROM busybox AS a\nCOPY f /f\nRUN head -c 200000 /dev/urandom > /r\nFROM busybox AS b\nRUN mkdir /b\n"
        "FROM a\nWORKDIR /w/x\nCOPY --from=b /b /b\nRUN cat /r /r > /rr\n"
    )
    body = context({"Dockerfile": dockerfile, "f": "x" * 100_000})
    head = f"POST /build?networkmode=none&nocache=1&t=torn HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    for _ in range(12):
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(daemon.socket))
            channel.sendall(head.encode() + b"Content-Type: application/x-tar\r\n\r\n" + body)
            time.sleep(chance.uniform(0.0, 0.6))
            daemon.stop(signal.SIGKILL)
        daemon.start()
        assert not daemon.ok("ps", "-aq")
        assert not [place for place in mounts_below(daemon.base) if "build" in place]
        if made := daemon.ok("images", "-q", "torn"):
            assert daemon.ok("run", "--rm", "--network=none", made, "wc", "-c", "/rr").startswith("400000")
            daemon.ok("rmi", "-f", "torn")
    done = send(daemon, body, t="torn").ok()
    assert daemon.ok("run", "--rm", "--network=none", done.id, "wc", "-c", "/rr").startswith("400000")


# -- clients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["copy-directory", "stage-diamond", "arg-default-and-given", "run-fails"])
def test_dockers_own_client(daemon: Daemon, name: str, tmp_path: Path) -> None:
    case = next(case for case in cases() if case.name == name)
    assert isinstance(case, Case)
    folder = case.lay_out(tmp_path)
    done = subprocess.run(
        ["docker", "build", "--network=none", "--tag=by-docker", *case.flags(), str(folder)],
        env=daemon.environment | {"DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if case.fails is not None:
        assert done.returncode == 7
        assert case.fails in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "Successfully tagged by-docker:latest" in done.stdout
    ours = daemon.ok("build", "--network=none", "--quiet", *case.flags(), str(folder))
    assert daemon.ok("inspect", "--type=image", "--format={{.Id}}", "by-docker") == ours


def test_a_tar_and_a_dockerfile_on_standard_input(daemon: Daemon) -> None:
    data = context({"Dockerfile": "FROM busybox\nCOPY f /f\n", "f": "x"})
    made = daemon.ok("build", "--quiet", "-", stdin=data)
    assert read(daemon, made, "/f") == "x"
    assert daemon.ok("build", "--quiet", "-", stdin=b"FROM busybox\nLABEL a=b\n").startswith("sha256:")


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_layers_in_the_form_that_was_asked_for(daemon: Daemon, form: str, tmp_path: Path) -> None:
    done = build(daemon, f"FROM busybox\nRUN echo {form} > /form\n", compression=form).ok()
    archive = tmp_path / "saved.tar"
    daemon.ok("save", "--output", str(archive), done.id)
    kinds = []
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        for layer in manifest[0]["Layers"]:
            kinds.append(outer.extractfile(layer).read(4))  # type: ignore[union-attr]
    assert kinds[-1].startswith(b"\x1f\x8b" if form == "gzip" else b"\x28\xb5\x2f\xfd")
    assert read(daemon, done.id, "/form") == form


def test_steps_behind_a_kernel_of_their_own(daemon: Daemon) -> None:
    dockerfile = (
        "FROM busybox\nRUN uname -r > /kernel && rm -r /home && mkdir -m 700 /p && chown 5:6 /p\n"
        "USER web\nRUN id -u > /tmp/id\n"
    )
    done = build(daemon, dockerfile, isolation="vm", t="walled").ok()
    assert read(daemon, done.id, "/kernel") != os.uname().release
    assert read(daemon, done.id, "/tmp/id") == "1000"
    shown = daemon.ok("run", "--rm", "--network=none", "--user=0", done.id, "stat", "-c", "%a %u %g", "/p")
    assert shown == "700 5 6"
    assert daemon.cli("run", "--rm", "--network=none", done.id, "ls", "/home").returncode
    failed = build(daemon, "FROM busybox\nRUN exit 9\n", isolation="vm")
    assert failed.code == 9


def test_commit_of_what_runs(daemon: Daemon) -> None:
    for wall in ("container", "vm"):
        daemon.ok("run", "-d", "--name=live", f"--isolation={wall}", "busybox", "sh", "-c", "echo hi > /f; sleep 600")
        deadline = time.monotonic() + 60
        while daemon.cli("exec", "live", "test", "-s", "/f").returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        made = daemon.ok("commit", "--message=why", "--author=me", "--change=CMD cat /f", "live", f"kept:{wall}")
        assert daemon.ok("run", "--rm", "--network=none", made) == "hi"
        shown = json.loads(daemon.ok("inspect", "--type=image", f"kept:{wall}"))[0]
        assert (shown["Author"], shown["Comment"]) == ("me", "why")
        assert daemon.ok("inspect", "--format={{.State.Status}}", "live") == "running"
        daemon.ok("rm", "-f", "live")
    refused = daemon.cli("import", "--change=RUN true", "-", stdin=context({"x": "y"}))
    assert refused.returncode
    assert "RUN is not a valid change command" in refused.stderr

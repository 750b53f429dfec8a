"""The docker command line on containers that exist: life, looks, changes, files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest
from tests.clients.conftest import Docker

HEX = r"[0-9a-f]{64}"


def test_create_start_wait_rm(docker: Docker) -> None:
    made = docker.ok("create", "--name", "one", "busybox", "sh", "-c", "exit 3")
    assert re.fullmatch(HEX, made)
    assert docker.field("one", "{{.State.Status}}") == "created"
    assert docker.ok("start", "one") == "one"
    assert docker.ok("wait", "one") == "3"
    assert docker.field("one", "{{.State.Status}} {{.State.ExitCode}}") == "exited 3"
    assert docker.ok("rm", "one") == "one"
    assert "No such" in docker("inspect", "one", code=1).err


def test_start_attached(docker: Docker) -> None:
    docker("create", "--name", "one", "-i", "busybox", "sh", "-c", "cat; exit 4")
    assert docker("start", "-ai", "one", stdin="typed", code=4).out == "typed"


@pytest.mark.parametrize(
    "verb",
    ["start", "stop", "restart", "kill", "pause", "unpause", "rm", "logs", "top", "port", "wait", "attach", "diff"],
)
def test_unknown_containers(docker: Docker, verb: str) -> None:
    done = docker(verb, "nothing-here", code=1)
    assert "No such container: nothing-here" in done.err


def test_start_and_stop_are_repeatable(docker: Docker, sleeper: str) -> None:
    assert docker.ok("start", sleeper) == sleeper
    assert docker.ok("stop", "-t", "0", sleeper) == sleeper
    assert docker.ok("stop", sleeper) == sleeper


def test_restart(docker: Docker, sleeper: str) -> None:
    before = docker.field(sleeper, "{{.State.Pid}}")
    docker("restart", "-t", "0", sleeper)
    assert docker.field(sleeper, "{{.State.Running}}") == "true"
    assert docker.field(sleeper, "{{.State.Pid}}") != before


def test_restart_keeps_what_is_removed_at_its_end(docker: Docker) -> None:
    docker("run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "1000")
    before = docker.field("brief", "{{.Id}} {{.State.Pid}}").split()
    docker("restart", "-t", "0", "brief")
    after = docker.field("brief", "{{.Id}} {{.State.Pid}}").split()
    assert after[0] == before[0]
    assert after[1] != before[1]
    docker("stop", "-t", "0", "brief")
    docker.until(lambda: docker("inspect", "brief", code=None).code == 1, "its removal")


def test_kill(docker: Docker, sleeper: str) -> None:
    docker("kill", "--signal", "KILL", sleeper)
    docker.until(lambda: docker.field(sleeper, "{{.State.ExitCode}}") == "137", "death")
    done = docker("kill", sleeper, code=1)
    assert re.search("is not running", done.err)
    assert (
        "nvalid signal"
        in docker("kill", "--signal", "NONSENSE", docker.ok("run", "-d", "busybox", "sleep", "9"), code=1).err
    )


def test_pause(docker: Docker, sleeper: str) -> None:
    docker("pause", sleeper)
    assert docker.field(sleeper, "{{.State.Status}} {{.State.Paused}} {{.State.Running}}") == "paused true true"
    assert "(Paused)" in docker.ok("ps", "--format", "{{.Status}}")
    assert "is paused" in docker("exec", sleeper, "true", code=1).err
    assert "already paused" in docker("pause", sleeper, code=1).err
    docker("unpause", sleeper)
    assert "is not paused" in docker("unpause", sleeper, code=1).err


def test_rename(docker: Docker, sleeper: str) -> None:
    docker("rename", sleeper, "other")
    assert docker.field("other", "{{.Name}}") == "/other"
    docker("create", "--name", "second", "busybox")
    assert "is already in use" in docker("rename", "second", "other", code=1).err


def test_update(docker: Docker, sleeper: str) -> None:
    docker("update", "--memory", "128m", "--memory-swap", "-1", "--restart", "unless-stopped", sleeper)
    assert (
        docker.field(sleeper, "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}")
        == f"{128 << 20} unless-stopped"
    )


def test_rm_of_a_running_container(docker: Docker, sleeper: str) -> None:
    assert re.search("cannot remove|You cannot remove a running container", docker("rm", sleeper, code=1).err)
    assert docker.ok("rm", "-f", sleeper) == sleeper
    docker("rm", "-f", sleeper, code=None)


def test_prefixes_of_ids(docker: Docker) -> None:
    made = docker.ok("run", "-d", "busybox", "sleep", "1000")
    for length in (3, 6, 12, 64):
        assert docker.field(made[:length], "{{.Id}}") == made


def test_top(docker: Docker, sleeper: str) -> None:
    lines = docker("top", sleeper).lines
    assert "PID" in lines[0]
    assert "sleep 1000" in lines[1]
    assert docker("top", sleeper, "-o", "pid,comm").lines[1].split()[1] == "sleep"


def test_stats(docker: Docker, sleeper: str) -> None:
    row = json.loads(docker.ok("stats", "--no-stream", "--format", "json", sleeper))
    assert row["Name"] == sleeper
    assert row["PIDs"] == "1"
    assert re.match(r"[\d.]+\w+ / [\d.]+\w+", row["MemUsage"])
    assert re.fullmatch(r"[\d.]+%", row["CPUPerc"])


def test_diff(docker: Docker) -> None:
    docker(
        "run", "--name", "one", "busybox", "sh", "-c", "touch /tmp/new; rm /var/www/index.html; echo x >> /etc/group"
    )
    assert set(docker("diff", "one").lines) >= {
        "A /tmp/new",
        "D /var/www/index.html",
        "C /etc/group",
        "C /etc",
        "C /tmp",
    }


def test_inspect(docker: Docker, sleeper: str) -> None:
    (shown,) = json.loads(docker.ok("inspect", "--size", sleeper))
    assert re.fullmatch(HEX, shown["Id"])
    assert shown["Name"] == "/sleeper"
    assert shown["Path"] == "sleep"
    assert shown["Args"] == ["1000"]
    assert shown["Config"]["Image"] == "busybox"
    assert shown["Config"]["Cmd"] == ["sleep", "1000"]
    assert shown["Config"]["Labels"]["who"] == "me"
    assert shown["HostConfig"]["ShmSize"] == 64 << 20
    assert shown["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert shown["HostConfig"]["LogConfig"]["Type"] == "json-file"
    assert shown["HostConfig"]["IpcMode"] == "private"
    assert shown["State"]["Pid"] > 0
    assert shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert "SizeRw" in shown


def test_inspect_of_unknown_things(docker: Docker) -> None:
    done = docker("inspect", "nothing-here", code=1)
    assert done.out.strip() == "[]"
    assert "nothing-here" in done.err


# -- ps ---------------------------------------------------------------------------------------


def test_ps_columns(docker: Docker, sleeper: str) -> None:
    head, row = docker("ps").lines
    assert head.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert re.match(r'[0-9a-f]{12}\s+busybox\s+"sleep 1000"\s+.* ago\s+Up .*\s+sleeper', row)
    assert docker.ok("ps", "-q", "--no-trunc") == docker.field(sleeper, "{{.Id}}")


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], {"up"}),
        (["-a"], {"up", "ended", "made"}),
        (["-l"], {"made"}),
        (["-n", "2"], {"made", "ended"}),
        (["--filter", "name=up"], {"up"}),
        (["-a", "--filter", "name=^/ended$"], {"ended"}),
        (["-a", "--filter", "status=exited"], {"ended"}),
        (["--filter", "status=created"], {"made"}),
        (["-a", "--filter", "exited=5"], {"ended"}),
        (["-a", "--filter", "exited=0"], set()),
        (["-a", "--filter", "label=kind"], {"up", "ended"}),
        (["-a", "--filter", "label=kind=a"], {"up"}),
        (["-a", "--filter", "ancestor=busybox"], {"up", "ended", "made"}),
        (["-a", "--filter", "ancestor=nothing"], set()),
        (["-a", "--filter", "before=made"], {"up", "ended"}),
        (["-a", "--filter", "since=up"], {"ended", "made"}),
        (["-a", "--filter", "volume=vol"], {"up"}),
        (["-a", "--filter", "volume=/vol"], {"up"}),
        (["-a", "--filter", "network=bridge"], {"up", "ended", "made"}),
        (["--filter", "expose=80"], {"up"}),
        (["--filter", "publish=38472"], {"up"}),
        (["-a", "--filter", "name=up", "--filter", "name=made"], {"up", "made"}),
        (["-a", "--filter", "label=kind", "--filter", "label=kind=a"], {"up"}),
        (["-a", "--filter", "status=running", "--filter", "status=created"], {"up", "made"}),
        (["-a", "--filter", "status=paused"], set()),
        (["-a", "--filter", "health=none"], {"up", "ended", "made"}),
        (["-a", "--filter", "health=healthy"], set()),
        (["-a", "--filter", "expose=79-81/tcp"], {"up"}),
        (["-a", "--filter", "expose=80/udp"], set()),
        (["-a", "--filter", "publish=38470-38480/tcp"], {"up"}),
        (["-a", "--filter", "network=nothing"], set()),
        (["-a", "--filter", "is-task=true"], set()),
        (["-a", "--filter", "name=u", "--filter", "status=exited"], set()),
    ],
    ids=str,
)
def test_ps_filters(docker: Docker, flags: list[str], names: set[str]) -> None:
    docker(
        "run",
        "-d",
        "--name",
        "up",
        "-l",
        "kind=a",
        "-v",
        "vol:/vol",
        "-p",
        "127.0.0.1:38472:80",
        "busybox",
        "sleep",
        "1000",
    )
    docker("run", "--name", "ended", "-l", "kind=b", "busybox", "sh", "-c", "exit 5", code=5)
    docker("create", "--name", "made", "busybox")
    assert set(docker.ok("ps", *flags, "--format", "{{.Names}}").split()) == names


def test_ps_formats(docker: Docker, sleeper: str) -> None:
    assert json.loads(docker.ok("ps", "--format", "json"))["Names"] == sleeper
    assert docker("ps", "--format", "table {{.Names}}\t{{.Image}}").lines[1].split() == [sleeper, "busybox"]
    assert docker.ok("ps", "--format", '{{.Label "who"}}') == "me"
    assert re.search(r"virtual", docker.ok("ps", "-s"))


def test_bad_filters(docker: Docker) -> None:
    assert "nvalid filter" in docker("ps", "--filter", "colour=red", code=1).err
    assert "nvalid" in docker("ps", "-a", "--filter", "status=asleep", code=1).err


def test_container_prune(docker: Docker, sleeper: str) -> None:
    ended = docker.ok("create", "busybox")
    done = docker.ok("container", "prune", "-f")
    assert ended in done
    assert "Total reclaimed space" in done
    assert docker.field(sleeper, "{{.State.Running}}") == "true"


def test_port(docker: Docker) -> None:
    docker(
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1:38473:80",
        "-p",
        "127.0.0.1:38474:53/udp",
        "busybox",
        "sleep",
        "1000",
    )
    assert set(docker("port", "web").lines) == {"80/tcp -> 127.0.0.1:38473", "53/udp -> 127.0.0.1:38474"}
    assert docker.ok("port", "web", "80/tcp") == "127.0.0.1:38473"
    assert "No public port" in docker("port", "web", "81", code=1).all


# -- logs -------------------------------------------------------------------------------------


@pytest.fixture
def talker(docker: Docker) -> str:
    """A container that has said five lines to each stream."""
    docker(
        "run", "--name", "talker", "busybox", "sh", "-c", "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done"
    )
    return "talker"


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ([], 10),
        (["--tail", "3"], 3),
        (["-n", "0"], 0),
        (["--tail", "all"], 10),
        (["--since", "1h"], 10),
        (["--since", "2100-01-01"], 0),
        (["--until", "1h"], 0),
        (["--since", "1h", "--tail", "1"], 1),
        (["-f"], 10),
    ],
    ids=str,
)
def test_logs(docker: Docker, talker: str, flags: list[str], lines: int) -> None:
    done = docker("logs", *flags, talker)
    assert len(done.all.splitlines()) == lines


def test_logs_keep_the_streams_apart(docker: Docker, talker: str) -> None:
    done = docker("logs", talker)
    assert done.lines == [f"out {n}" for n in range(1, 6)]
    assert done.err.splitlines() == [f"err {n}" for n in range(1, 6)]


def test_timestamps(docker: Docker, talker: str) -> None:
    line = docker("logs", "-t", "--tail", "1", talker).all
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (out|err) 5", line)


def test_following_ends_with_the_container(docker: Docker) -> None:
    docker("run", "-d", "--name", "slow", "busybox", "sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.2; done")
    assert docker("logs", "-f", "slow").lines == ["1", "2", "3"]


def test_logs_of_a_terminal(docker: Docker) -> None:
    docker("run", "-d", "--name", "tty", "-t", "busybox", "echo", "hi")
    docker("wait", "tty")
    assert docker("logs", "tty").out == "hi\r\n"


def test_no_logs(docker: Docker) -> None:
    docker("run", "--name", "mute", "--log-driver", "none", "busybox", "echo", "hi")
    assert "does not support reading" in docker("logs", "mute", code=1).err


# -- attach -----------------------------------------------------------------------------------


def test_attach(docker: Docker) -> None:
    docker("run", "-d", "-i", "--name", "cat", "busybox", "cat")
    process = docker.begin("attach", "cat")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"echoed\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"echoed\n"
    docker("kill", "cat")
    assert process.wait(20) == 137


def test_attach_to_what_does_not_run(docker: Docker) -> None:
    docker("create", "--name", "one", "busybox")
    assert "cannot attach to a stopped container" in docker("attach", "one", code=1).err


# -- cp, export, commit -----------------------------------------------------------------------


def test_cp_in_and_out(docker: Docker, sleeper: str, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("content")
    (tmp_path / "tree" / "script").write_text("x")
    (tmp_path / "tree" / "script").chmod(0o755)
    docker("cp", str(tmp_path / "tree"), f"{sleeper}:/tmp")
    assert docker.ok("exec", sleeper, "cat", "/tmp/tree/deep/file") == "content"
    assert docker.ok("exec", sleeper, "stat", "-c", "%a", "/tmp/tree/script") == "755"
    docker("cp", f"{sleeper}:/tmp/tree/deep", str(tmp_path / "back"))
    assert (tmp_path / "back" / "file").read_text() == "content"
    docker("cp", f"{sleeper}:/etc/passwd", str(tmp_path / "passwd"))
    assert "root" in (tmp_path / "passwd").read_text()


def test_cp_renames_and_merges(docker: Docker, sleeper: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    docker("cp", str(tmp_path / "a"), f"{sleeper}:/tmp/b")
    assert docker.ok("exec", sleeper, "cat", "/tmp/b") == "a"
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "c").write_text("c")
    docker("cp", f"{tmp_path}/dir/.", f"{sleeper}:/tmp")
    assert docker.ok("exec", sleeper, "cat", "/tmp/c", "/tmp/b") == "ca"


def test_cp_with_stopped_containers(docker: Docker, tmp_path: Path) -> None:
    docker("create", "--name", "cold", "-v", "vol:/vol", "busybox", "cat", "/tmp/a", "/vol/a")
    (tmp_path / "a").write_text("cold")
    docker("cp", str(tmp_path / "a"), "cold:/tmp/a")
    docker("cp", str(tmp_path / "a"), "cold:/vol/a")
    assert docker("start", "-a", "cold").out == "coldcold"
    docker("cp", "cold:/vol/a", str(tmp_path / "b"))
    assert (tmp_path / "b").read_text() == "cold"


def test_cp_keeps_owners(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 1234, 2345)
    docker("run", "-d", "--name", "owner", "-u", "1000:1000", "busybox", "sleep", "1000")
    docker("cp", str(tmp_path / "file"), "owner:/tmp/kept")
    assert docker.ok("exec", "owner", "stat", "-c", "%u:%g", "/tmp/kept") == "1234:2345"


@pytest.mark.beyond  # dockerd looks for the image's getent
def test_cp_gives_all_to_the_user(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    docker("run", "-d", "--name", "owner", "-u", "1000:1000", "busybox", "sleep", "1000")
    docker("cp", "-a", str(tmp_path / "file"), "owner:/tmp/given")
    assert docker.ok("exec", "owner", "stat", "-c", "%u:%g", "/tmp/given") == "1000:1000"


def test_cp_by_tar(docker: Docker, sleeper: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("piped")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    docker("cp", "-", f"{sleeper}:/tmp", stdin=packed.getvalue())
    assert docker.ok("exec", sleeper, "cat", "/tmp/piped") == "abc"


def test_cp_of_links(docker: Docker, sleeper: str, tmp_path: Path) -> None:
    docker("exec", sleeper, "sh", "-c", "ln -s /etc/passwd /tmp/link; ln -s /etc /tmp/dirlink")
    docker("cp", f"{sleeper}:/tmp/link", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    docker("cp", "-L", f"{sleeper}:/tmp/link", str(tmp_path / "followed"))
    assert "root" in (tmp_path / "followed").read_text()


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("{name}:/absent", "{here}/x", "Could not find the file /absent in container|No such container:path"),
        ("{here}/absent", "{name}:/tmp", "no such file or directory"),
        ("{here}", "{name}:/absent/deep/x", "(?i)no such directory|could not find|not a directory|does not exist"),
        ("{here}", "{name}:/etc/passwd", "(?i)cannot copy directory|not a directory"),
        ("none:/etc", "{here}/x", "No such container: none|Could not find"),
    ],
    ids=str,
)
def test_cp_of_what_is_not_there(
    docker: Docker, sleeper: str, tmp_path: Path, source: str, target: str, message: str
) -> None:
    names = {"name": sleeper, "here": str(tmp_path)}
    done = docker("cp", source.format(**names), target.format(**names), code=1)
    assert re.search(message, done.err), done.err


def test_export(docker: Docker, sleeper: str) -> None:
    docker("exec", sleeper, "touch", "/tmp/mark")
    import subprocess

    packed = subprocess.run(
        ["docker", "export", sleeper], capture_output=True, env=docker.environment, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = set(tar.getnames())
    assert {"etc/passwd", "bin/busybox", "tmp/mark"} <= names


def test_commit(docker: Docker) -> None:
    docker("run", "--name", "one", "busybox", "sh", "-c", "echo kept > /kept")
    made = docker.ok(
        "commit",
        "-m",
        "why",
        "-a",
        "who",
        "--change",
        "ENV X=y",
        "--change",
        'CMD ["cat", "/kept"]',
        "one",
        "committed:1",
    )
    assert made.startswith("sha256:")
    assert docker.ok("run", "--rm", "committed:1") == "kept"
    assert "X=y" in docker.field("committed:1", "{{.Config.Env}}", "image")
    docker("rm", "one")
    docker("rmi", "committed:1")


# -- exec -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "command", "code", "output"),
    [
        ([], ["echo", "hello"], 0, "hello\n"),
        ([], ["sh", "-c", "exit 9"], 9, ""),
        ([], ["sh", "-c", "kill -9 $$"], 137, ""),
        (["-e", "A=b"], ["sh", "-c", "echo $A"], 0, "b\n"),
        (["-w", "/etc"], ["sh", "-c", "pwd"], 0, "/etc\n"),
        (["-u", "web"], ["id", "-u"], 0, "1000\n"),
        (["-u", "7:8"], ["sh", "-c", "id -u; id -g"], 0, "7\n8\n"),
        (["-i"], ["cat"], 0, "typed"),
        (["-t"], ["sh", "-c", "test -t 1 && echo terminal"], 0, "terminal\r\n"),
        (["--privileged"], ["sh", "-c", "grep -q 'CapEff:.*a80425fb' /proc/self/status || echo more"], 0, "more\n"),
        (["-d"], ["sleep", "5"], 0, ""),
    ],
    ids=str,
)
def test_exec(docker: Docker, sleeper: str, flags: list[str], command: list[str], code: int, output: str) -> None:
    done = docker("exec", *flags, sleeper, *command, stdin="typed" if "-i" in flags else None, code=code)
    assert done.out == output


def test_exec_keeps_the_streams_apart(docker: Docker, sleeper: str) -> None:
    done = docker("exec", sleeper, "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")


def test_exec_of_what_is_not_there(docker: Docker, sleeper: str) -> None:
    done = docker("exec", sleeper, "nonexistent", code=None)
    assert done.code in (126, 127)  # Docker's own changed from the one to the other
    assert "executable file not found" in done.all
    docker("exec", sleeper, "/etc/passwd", code=126)
    assert "unable to find user nobody-here" in docker("exec", "-u", "nobody-here", sleeper, "true", code=None).all


def test_exec_in_what_does_not_run(docker: Docker) -> None:
    docker("create", "--name", "cold", "busybox")
    assert re.search(r"[cC]ontainer \w+ is not running", docker("exec", "cold", "true", code=1).err)
    assert "No such container: none" in docker("exec", "none", "true", code=1).err


def test_execs_carry_much(docker: Docker, sleeper: str) -> None:
    done = docker("exec", "-i", sleeper, "sha256sum", stdin=b"y" * 3_000_000)
    assert done.out.split()[0] == hashlib.sha256(b"y" * 3_000_000).hexdigest()
    assert len(docker("exec", sleeper, "seq", "1", "100000").lines) == 100000

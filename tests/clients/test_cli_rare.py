"""The flags that are used least: each does what docker's does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.clients.conftest import Docker

SLEEP = ("busybox", "sleep", "1000")


@pytest.mark.parametrize(
    ("flags", "template", "value"),
    [
        (["--no-healthcheck"], "{{json .Config.Healthcheck.Test}}", '["NONE"]'),
        (
            ["--health-cmd", "true", "--health-start-period", "5s", "--health-start-interval", "2s"],
            "{{.Config.Healthcheck.StartPeriod}} {{.Config.Healthcheck.StartInterval}}",
            "5s 2s",
        ),
        (["--health-cmd", "true", "--health-timeout", "3s"], "{{.Config.Healthcheck.Timeout}}", "3s"),
        (["--log-opt", "max-size=1m", "--log-opt", "max-file=2"], "{{json .HostConfig.LogConfig}}", "LOG"),
        (["--expose", "8000-8001/udp"], "{{json .Config.ExposedPorts}}", '{"8000/udp":{},"8001/udp":{}}'),
        (["--volume-driver", "local", "-v", "data:/d"], "{{(index .Mounts 0).Driver}}", "local"),
        (
            ["--stop-signal", "SIGQUIT", "--stop-timeout", "7"],
            "{{.Config.StopSignal}} {{.Config.StopTimeout}}",
            "SIGQUIT 7",
        ),
        (["--annotation", "a=b"], "{{json .HostConfig.Annotations}}", '{"a":"b"}'),
        (["--group-add", "extra", "--group-add", "7"], "{{json .HostConfig.GroupAdd}}", '["extra","7"]'),
        (["--domainname", "example.org"], "{{.Config.Domainname}}", "example.org"),
        (["--memory", "64m", "--memory-reservation", "32m"], "{{.HostConfig.MemoryReservation}}", str(32 << 20)),
        (["--oom-score-adj", "100"], "{{.HostConfig.OomScoreAdj}}", "100"),
        (["--publish-all", "--expose", "80"], "{{.HostConfig.PublishAllPorts}}", "true"),
        (
            ["--dns-option", "ndots:2", "--dns-search", "a.b"],
            "{{.HostConfig.DnsOptions}} {{.HostConfig.DnsSearch}}",
            "[ndots:2] [a.b]",
        ),
        (["--runtime", "runc"], "{{.HostConfig.Runtime}}", "runc"),
        (["--shm-size", "32m"], "{{.HostConfig.ShmSize}}", str(32 << 20)),
        (["--ulimit", "nofile=5:6"], "{{json .HostConfig.Ulimits}}", '[{"Name":"nofile","Hard":6,"Soft":5}]'),
    ],
    ids=str,
)
def test_kept(docker: Docker, flags: list[str], template: str, value: str) -> None:
    docker("create", "--name", "one", *flags, "busybox")
    found = docker.field("one", template)
    if value == "LOG":
        assert json.loads(found) == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    else:
        assert found == value


def test_only_one_stream(docker: Docker) -> None:
    done = docker("run", "--rm", "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("", "err\n")


def test_start_attached_and_interactive(docker: Docker) -> None:
    docker("create", "-i", "--name", "one", "busybox", "cat")
    assert docker("start", "--attach", "--interactive", "one", stdin="typed").out == "typed"


def test_ports_of_publish_all(docker: Docker) -> None:
    docker("run", "-d", "-P", "--expose", "80", "--name", "one", *SLEEP)
    assert re.search(r"80/tcp -> 0\.0\.0\.0:\d+", docker.ok("port", "one"))


@pytest.mark.parametrize(
    "flags", [["--author", "me <a@b>", "--message", "why"], ["-a", "me <a@b>", "-m", "why"]], ids=str
)
def test_commit_says_who_and_why(docker: Docker, flags: list[str]) -> None:
    docker("create", "--name", "one", "busybox")
    docker("commit", *flags, "one", "made:1")
    assert docker.field("made:1", "{{.Author}} {{.Comment}}", "image") == "me <a@b> why"
    docker("rmi", "made:1")


def test_import_says_why(docker: Docker) -> None:
    docker("import", "--message", "why", "--change", "CMD x", "-", "flat:1", stdin=b"\0" * 10240)
    assert docker.field("flat:1", "{{.Comment}} {{json .Config.Cmd}}", "image") == 'why ["/bin/sh","-c","x"]'
    docker("rmi", "flat:1")


def test_digests(docker: Docker) -> None:
    assert docker.ok("images", "--digests").splitlines()[0].split()[:3] == ["REPOSITORY", "TAG", "DIGEST"]


def test_cp_is_quiet(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    docker("create", "--name", "one", "busybox")
    assert docker("cp", "--quiet", str(tmp_path / "file"), "one:/tmp").all == ""


def test_builds(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Other").write_text("FROM busybox AS first\nLABEL a=b\nFROM first\nLABEL c=d\n")
    flags = ("--file", str(tmp_path / "Other"), "--target", "first", "--iidfile", str(tmp_path / "id"))
    docker("build", *flags, "--tag", "built:1", "--no-cache", "--force-rm", "--label", "e=f", str(tmp_path))
    assert docker.field("built:1", "{{json .Config.Labels}}", "image") == '{"a":"b","e":"f"}'
    assert docker.field("built:1", "{{.Id}}", "image") == (tmp_path / "id").read_text()
    docker("rmi", "built:1")


def test_network_options(docker: Docker) -> None:
    option = "com.docker.network.driver.mtu=1400"
    docker("network", "create", "--opt", option, "--ipam-opt", "a=b", "--scope", "local", "net")
    (shown,) = json.loads(docker.ok("network", "inspect", "net"))
    assert shown["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert shown["IPAM"]["Options"] == {"a": "b"}
    assert "mtu 1400" in docker.ok("run", "--rm", "--network", "net", "busybox", "ip", "link", "show", "eth0")


def test_update_of_rare_limits(docker: Docker) -> None:
    docker("run", "-d", "--name", "one", *SLEEP)
    docker("update", "--cpu-period", "50000", "--cpu-quota", "25000", "--cpuset-cpus", "0", "one")
    assert docker.field("one", "{{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}}") == "50000 25000"


@pytest.mark.parametrize(
    ("flag", "rate", "field", "number"),
    [
        ("--device-read-bps", "1mb", "BlkioDeviceReadBps", 1 << 20),
        ("--device-write-bps", "2mb", "BlkioDeviceWriteBps", 2 << 20),
        ("--device-read-iops", "100", "BlkioDeviceReadIOps", 100),
        ("--device-write-iops", "200", "BlkioDeviceWriteIOps", 200),
    ],
)
def test_rates_of_a_device(docker: Docker, flag: str, rate: str, field: str, number: int) -> None:
    disks = (folder.parent for folder in Path("/sys/class/block").glob("*/queue"))
    device = next(str(path) for disk in disks if (path := Path("/dev", disk.name)).is_block_device())
    docker("run", "-d", "--name", "slow", flag, f"{device}:{rate}", *SLEEP)
    shown = json.loads(docker.ok("inspect", "-f", f"{{{{json .HostConfig.{field}}}}}", "slow"))
    assert shown == [{"Path": device, "Rate": number}]
    done = docker("run", "--rm", flag, f"/dev/nothing:{rate}", "busybox", "true", code=None)
    assert done.code in (125, 126, 127)
    assert "/dev/nothing" in done.err


def test_real_time(docker: Docker) -> None:
    """Refused by name: Docker gives it only where its daemon was set up for that, which this dockerd was not."""
    done = docker("run", "--rm", "--cpu-rt-runtime", "100000", "busybox", "true", code=None)
    assert done.code
    assert re.search("(?i)realtime|real-time|rt_runtime|rt_period", done.err)


@pytest.mark.parametrize("flags", [["--storage-opt", "size=20m"]], ids=str)
def test_what_hangs_on_the_host(docker: Docker, flags: list[str]) -> None:
    """Honoured, or refused by name."""
    docker("network", "create", "--subnet", "10.111.0.0/24", "net")
    done = docker("run", "--rm", "--network", "net", *flags, "busybox", "true", code=None)
    assert done.code == 0 or re.search("(?i)storage-opt|storage option", done.err)


@pytest.mark.parametrize(
    "words",
    [["node", "ls"], ["service", "ls"], ["stack", "ls"], ["secret", "ls"], ["config", "ls"], ["swarm", "leave"]],
    ids=" ".join,
)
def test_outside_a_swarm(docker: Docker, words: list[str]) -> None:
    assert re.search("(?i)not a swarm manager|not part of a swarm", docker(*words, code=1).err)


def test_plugins(docker: Docker) -> None:
    """There are none."""
    assert docker.ok("plugin", "ls", "-q") == ""
    assert re.search("(?i)not found|no such plugin", docker("plugin", "inspect", "nothing", code=1).err)

"""Every field of a creation behind the walls with a kernel of their own: honoured, or refused by name.

The cases are test_fields' own, what is seen inside included. Where a wall differs, the tables here say how: what it
refuses and in which words, what it honours on the host around it, and what is seen in another way.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.clients.conftest import Docker
from tests.clients.engines import ISOLATION, PEER
from tests.clients.raw import Api
from tests.clients.test_fields import CASES, Case, host, mount

WALLS = ["vm", *(["gvisor"] if shutil.which("runsc") else [])] if not ISOLATION and PEER == "bastide" else []
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()


class Refused(NamedTuple):
    """It is refused, when it is created or at the latest when it is started, with this word."""

    word: str


class Around(NamedTuple):
    """It is honoured by the wall's own cgroup on the host: the file of version 1 or 2, and what that says."""

    v1: str
    v2: str
    said: str


class Inside(NamedTuple):
    """It is seen inside by another line."""

    shell: str
    said: str


class Process(NamedTuple):
    """It is honoured by the wall's own process on the host: the file in its /proc, and what that says."""

    file: str
    said: str


Expected = Refused | Around | Inside | Process
_PERIOD = Around("cpu/cpu.cfs_period_us", "cpu.max", "(20000 )?50000")
_SHARED = Refused("a shared namespace")
_OF_HOST: dict[str, Expected] = {
    "HostConfig.CpuShares": Around("cpu/cpu.shares", "cpu.weight", "512|20"),
    "HostConfig.CpuPeriod": _PERIOD,
    "HostConfig.CpuQuota": Around("cpu/cpu.cfs_quota_us", "cpu.max", "20000( 100000)?"),
    "HostConfig.NanoCpus": Around("cpu/cpu.cfs_quota_us", "cpu.max", "50000( 100000)?"),
    "HostConfig.CpusetCpus": Around("cpuset/cpuset.cpus", "cpuset.cpus", "0"),
    "HostConfig.CpusetMems": Around("cpuset/cpuset.mems", "cpuset.mems", "0"),
    "HostConfig.MemoryReservation": Around("memory/memory.soft_limit_in_bytes", "memory.low", str(32 << 20)),
    "HostConfig.Runtime": Refused("name only one of them"),
    "HostConfig.Devices": Refused("--device"),
    "HostConfig.DeviceCgroupRules": Refused("--device"),
    "HostConfig.IpcMode": Refused("--ipc none"),
    "HostConfig.PidMode": _SHARED,
    "HostConfig.UTSMode": _SHARED,
    "HostConfig.ReadonlyPaths": Refused("ReadonlyPaths"),
    "HostConfig.SecurityOpt seccomp": Refused("seccomp"),
}
_MOUNT = "grep ' /m ' /proc/self/mountinfo | tail -n1"
DIFFERENT: dict[str, dict[str, Expected]] = {
    "vm": _OF_HOST
    | {
        # The limit holds all processes of the guest, and its agent is one.
        "HostConfig.PidsLimit": Inside("cat /sys/fs/cgroup/pids.max", "34"),
        "Mount.BindOptions": Inside(_MOUNT, r".* /m rw.* - 9p .*"),
    },
    "gvisor": _OF_HOST
    | {
        "Domainname": Inside("hostname -d", "example.org"),
        "NetworkDisabled": Inside("ip -o link | cut -d: -f2", "lo"),
        "HostConfig.NetworkMode": Inside("ip -o link | cut -d: -f2", "lo"),
        "MacAddress": Inside("ip link show eth0", "(?s).*02:42:00:00:00:77.*"),
        "HostConfig.Memory": Around("memory/memory.limit_in_bytes", "memory.max", str(64 << 20)),
        "HostConfig.MemorySwap": Around(
            "memory/memory.memsw.limit_in_bytes", "memory.swap.max", f"{96 << 20}|{32 << 20}"
        ),
        "HostConfig.OomScoreAdj": Process("oom_score_adj", "321"),
        "HostConfig.PidsLimit": Refused("--pids-limit"),
        "HostConfig.Privileged": Refused("--privileged"),
        "HostConfig.Sysctls": Refused("--sysctl"),
        "BindOptions.ReadOnlyNonRecursive": Refused("ReadOnlyNonRecursive"),
        # Raw sockets are beyond it, and no program gains rights by being run.
        "HostConfig.CapAdd": Inside("grep CapEff /proc/self/status", r"CapEff:\s+0+a80415fb"),
        "HostConfig.SecurityOpt no-new-privileges": Inside("echo always", "always"),
        "HostConfig.SecurityOpt seccomp=unconfined": Inside("echo free", "free"),
        "HostConfig.Tmpfs": Inside(_MOUNT, r"(?!.*noexec).* /m rw.* - tmpfs .*size=1m.*"),
        "TmpfsOptions.SizeBytes": Inside(_MOUNT, ".*size=2097152.*"),
        "HostConfig.ShmSize": Inside("df -k /dev/shm | tail -n1", r".*\s3072\s.*"),
        "HostConfig.Binds": Inside(_MOUNT, ".* /m ro.*"),
        "Mount.BindOptions": Inside(_MOUNT, r".* /m rw.* - .*"),
    },
}


def key(case: Case) -> str:
    """The field, and of a security option which."""
    options = case.body.get("HostConfig", {}).get("SecurityOpt")
    return f"{case.field} {options[0] if len(options[0]) < 40 else 'seccomp'}" if options else case.field


@pytest.fixture
def api(docker: Docker) -> Api:
    return Api(docker.host)


def made(api: Api, wall: str, body: dict[str, Any]) -> tuple[int, str, str]:
    """Create a container behind a wall and start it: status, id and message."""
    whole = {"Image": "busybox", **body, "HostConfig": {"Isolation": wall, **body.get("HostConfig", {})}}
    answer = api("POST", "/containers/create", whole)
    name = answer.json().get("Id", "")
    if name:
        answer = api("POST", f"/containers/{name}/start")
    return answer.status, name, answer.json()["message"] if answer.status >= 400 else ""


def refused(api: Api, wall: str, body: dict[str, Any], word: str) -> None:
    status, _, message = made(api, wall, {"Cmd": ["true"], **body})
    assert status in (400, 501), message
    assert word in message
    assert "\n" not in message


def said(api: Api, wall: str, body: dict[str, Any], shell: str) -> str:
    status, name, message = made(api, wall, {"Cmd": ["sh", "-c", shell], **body})
    assert status == 204, message
    api.ok("POST", f"/containers/{name}/wait")
    raw = api("GET", f"/containers/{name}/logs?stdout=1&stderr=1").body
    text = raw if body.get("Tty") else re.sub(rb"(?s)[\0-\2]\0\0\0....", b"", raw)
    return text.decode(errors="replace").replace("\r\n", "\n").strip()


def running(api: Api, wall: str, body: dict[str, Any]) -> str:
    status, name, message = made(api, wall, {"Cmd": ["sleep", "100"], **body})
    assert status == 204, message
    return name


def around(api: Api, wall: str, body: dict[str, Any], files: tuple[str, str]) -> str:
    """A file of the container's cgroup on the host while it runs."""
    name = running(api, wall, body)
    controller, file = ("", files[1]) if UNIFIED else files[0].split("/")
    (found,) = Path("/sys/fs/cgroup", controller).glob(f"*/{name}/{file}")
    return found.read_text().strip()


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("case", CASES, ids=key)
def test_honoured_or_refused(api: Api, wall: str, case: Case) -> None:
    match DIFFERENT[wall].get(key(case), Inside(case.shell, case.said)):
        case Refused(word):
            refused(api, wall, case.body, word)
        case Around(v1, v2, pattern):
            found = around(api, wall, case.body, (v1, v2))
            assert re.fullmatch(pattern, found), found
        case Process(file, pattern):
            pid = api.ok("GET", f"/containers/{running(api, wall, case.body)}/json")["State"]["Pid"]
            assert re.fullmatch(pattern, Path(f"/proc/{pid}/{file}").read_text().strip())
        case Inside(shell, pattern):
            found = said(api, wall, case.body, shell)
            assert re.fullmatch(pattern, found), found


def test_the_tables_speak_of_fields() -> None:
    known = {key(case) for case in CASES}
    for table in DIFFERENT.values():
        assert table.keys() <= known


ALSO_REFUSED: dict[str, dict[str, tuple[dict[str, Any], str]]] = {
    "vm": {
        "CgroupnsMode": (host(CgroupnsMode="host"), "a shared namespace"),
        "UsernsMode": (host(UsernsMode="host"), "a shared namespace"),
        "MemorySwappiness": (host(Memory=64 << 20, MemorySwappiness=7), "--memory-swappiness"),
        "OomKillDisable": (host(Memory=64 << 20, OomKillDisable=True), "--oom-kill-disable"),
        "MaskedPaths": (host(MaskedPaths=["/proc/uptime"]), "MaskedPaths"),
        "NetworkMode": (host(NetworkMode="host"), "--network host"),
        "Ulimits": (host(Ulimits=[{"Name": "colour", "Soft": 1, "Hard": 1}]), "colour"),
        "SecurityOpt label": (host(SecurityOpt=["label=type:x"]), "label"),
        "SecurityOpt apparmor": (host(SecurityOpt=["apparmor=mine"]), "apparmor"),
        "Propagation": (mount(Type="bind", Source="/tmp", BindOptions={"Propagation": "rshared"}), "ropagation"),
        "Binds": (host(Binds=["/tmp:/m:rshared"]), "ropagation"),
    },
    "gvisor": {
        "CgroupnsMode": (host(CgroupnsMode="host"), "a shared namespace"),
        "UsernsMode": (host(UsernsMode="host"), "a shared namespace"),
        "MaskedPaths": (host(MaskedPaths=["/proc/uptime"]), "MaskedPaths"),
        "NetworkMode": (host(NetworkMode="host"), "--network host"),
        "Ulimits": (host(Ulimits=[{"Name": "colour", "Soft": 1, "Hard": 1}]), "colour"),
        "SecurityOpt label": (host(SecurityOpt=["label=type:x"]), "label"),
        "SecurityOpt apparmor": (host(SecurityOpt=["apparmor=mine"]), "apparmor"),
        "CapAdd": (host(CapAdd=["NET_RAW"]), "NET_RAW"),
        "Propagation": (mount(Type="bind", Source="/tmp", BindOptions={"Propagation": "rshared"}), "ropagation"),
        "Binds": (host(Binds=["/tmp:/m:rslave"]), "ropagation"),
    },
}


@pytest.mark.parametrize(("wall", "field"), [(wall, field) for wall in WALLS for field in ALSO_REFUSED[wall]])
def test_refused(api: Api, wall: str, field: str) -> None:
    refused(api, wall, *ALSO_REFUSED[wall][field])


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("name", ["ReadBps", "WriteBps", "ReadIOps", "WriteIOps"])
def test_throttles(api: Api, wall: str, name: str) -> None:
    device = next(path for path in (Path("/dev", each.name) for each in Path("/sys/block").iterdir()) if path.exists())
    kind, unit = re.findall("[A-Z][a-z]+|IOps", name)
    file = f"blkio/blkio.throttle.{kind.lower()}_{unit.lower()}_device"
    body = host(**{f"BlkioDevice{name}": [{"Path": str(device), "Rate": 1 << 20}]})
    assert str(1 << 20) in around(api, wall, body, (file, "io.max"))


@pytest.mark.parametrize("wall", [wall for wall in WALLS if wall == "gvisor" and not UNIFIED])
def test_what_only_cgroup_v1_has(api: Api, wall: str) -> None:
    limits = {"Memory": 64 << 20, "MemorySwappiness": 7, "OomKillDisable": True}
    assert around(api, wall, host(**limits), ("memory/memory.swappiness", "")) == "7"
    assert "oom_kill_disable 1" in around(api, wall, host(**limits), ("memory/memory.oom_control", ""))


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("kind", ["pid", "ipc"])
def test_nobody_joins_a_wall(docker: Docker, api: Api, wall: str, kind: str) -> None:
    """What the host sees of it is the wall's own process, which is in the host's namespaces."""
    name = running(api, wall, {})
    done = docker("run", "--rm", f"--{kind}", f"container:{name}", "busybox", "true", code=None)
    assert done.code == 125
    assert f"isolation {wall} of" in done.err


@pytest.mark.parametrize("wall", WALLS)
def test_sizes_and_parts_of_volumes(api: Api, wall: str) -> None:
    there = {"Target": "/var/www", "Type": "volume", "Source": f"part-{wall}", "VolumeOptions": {"NoCopy": True}}
    assert said(api, wall, host(Mounts=[there]), "ls /var/www; mkdir /var/www/sub; touch /var/www/sub/x") == ""
    part = mount(Type="volume", Source=f"part-{wall}", VolumeOptions={"Subpath": "sub"})
    assert said(api, wall, part, "ls /m") == "x"
    status, name, message = made(api, wall, {"Cmd": ["true"], **mount(Type="volume", Source=f"part-{wall}")})
    assert status == 204, message
    assert said(api, wall, host(VolumesFrom=[f"{name}:ro"]), "ls /m/sub; touch /m/y 2>/dev/null || echo closed") == (
        "x\nclosed"
    )

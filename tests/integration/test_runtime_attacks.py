"""Hostile images and guests against a whole daemon, run and exec, behind every wall (ATTACKS 14 to 23)."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.clients.raw import Api
from tests.living import Daemon

from bastide.host.capabilities import decode

WALLS = ["container", "vm"]


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon; what a test leaves is removed."""
    yield daemon
    daemon.clear()
    for name in daemon.ok("volume", "ls", "-q").split():
        daemon.cli("volume", "rm", "-f", name)


@pytest.fixture
def api(clean: Daemon) -> Api:
    return Api(f"unix://{clean.socket}")


def run(daemon: Daemon, wall: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return daemon.cli("run", "--isolation", wall, *args, check=check)


def memory(daemon: Daemon) -> int:
    """Bytes of memory that the daemon has for itself."""
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Private_Dirty:")).split()[1]) << 10


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[None]:
    """Two names of a directory change places as fast as they can (renameat2(2), RENAME_EXCHANGE)."""
    ended = threading.Event()
    libc = ctypes.CDLL(None, use_errno=True)

    def swap() -> None:
        while not ended.is_set():
            libc.renameat2(-100, bytes(first), -100, bytes(second), 2)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# -- 14: the programs that enter a container ------------------------------------------------------


def test_the_programs_that_enter_cannot_be_written(clean: Daemon) -> None:
    """CVE-2019-5736 by an image whose program is the runtime's own, for run and for exec."""
    programs = [Path(shutil.which(name) or "") for name in ("crun", "runc", "conmon")]
    programs += sorted(Path(os.environ["BASTIDE_GUEST_ROOT"]).glob("*[!.]*"))
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in programs if path.is_file()}
    overwrite = "while :; do for p in /proc/[0-9]* /proc/self; do (echo x > $p/exe) 2>/dev/null; done; done"
    for runtime in ("crun", "runc"):
        clean.ok("run", "-d", "--runtime", runtime, "--name", f"evil-{runtime}", "busybox", "sh", "-c", overwrite)
        clean.ok("exec", f"evil-{runtime}", "sh", "-c", "echo '#!/proc/self/exe' > /tmp/trap; chmod +x /tmp/trap")
        for _ in range(5):
            clean.cli("exec", f"evil-{runtime}", "/tmp/trap")
            clean.cli("exec", f"evil-{runtime}", "/proc/self/exe")
            clean.cli("run", "--rm", "--runtime", runtime, "busybox", "/proc/self/exe")
        assert clean.ok("exec", f"evil-{runtime}", "echo", "alive") == "alive"
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in before} == before
    assert clean.ok("run", "--rm", "busybox", "echo", "fine") == "fine"


# -- 15: descriptors -------------------------------------------------------------------------------


@pytest.mark.parametrize("wall", WALLS)
def test_no_descriptor_comes_in(clean: Daemon, wall: str) -> None:
    """CVE-2024-21626: by a process's own list, and by a directory to work in, for run and for exec."""
    listing = ("sh", "-c", "ls -l /proc/self/fd | wc -l")
    run(clean, wall, "-d", "--name", "open", "busybox", "sleep", "1000")
    assert run(clean, wall, "--rm", "busybox", *listing).stdout.strip() == "5"
    assert clean.ok("exec", "open", *listing) == "5"
    for number in (*range(3, 12), 20, 30):
        for place in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../../.."):
            done = clean.cli("exec", "-w", place, "open", "sh", "-c", "ls -di . /; ls ../../../..")
            assert "boot" not in done.stdout, place
            assert not done.stdout or len({line.split()[0] for line in done.stdout.splitlines()[:2]}) <= 2
    for number in (*range(3, 12), 20) if wall == "container" else (3, 7, 9):
        done = run(clean, wall, "--rm", "-w", f"/proc/self/fd/{number}", "busybox", "ls", "../../..", check=False)
        assert "boot" not in done.stdout


# -- 16: mounts that move ----------------------------------------------------------------------------


def makes_folders_outside(runtime: str) -> bool:
    """CVE-2024-45310: runc before 1.1.14 can be made to create empty files and folders. It is not the default."""
    if runtime != "runc":
        return False
    said = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    assert found
    return tuple(map(int, found.groups())) < (1, 1, 14)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_targets_that_are_swapped_meanwhile(clean: Daemon, tmp_path: Path, runtime: str) -> None:
    """CVE-2021-30465: another container changes the way to a mount's target while this one starts."""
    outside = tmp_path / "outside"
    outside.mkdir()
    clean.ok("volume", "create", "shared")
    tree = Path(clean.ok("volume", "inspect", "--format", "{{.Mountpoint}}", "shared"))
    (tree / "way").mkdir()
    (tree / "link").symlink_to("../" * 20 + str(outside)[1:])
    before = Path("/proc/self/mountinfo").read_text().count(str(outside))
    with swapping(tree / "way", tree / "link"):
        for number in range(25):
            clean.cli(
                *("run", "--rm", "-v", "shared:/v", "--tmpfs", f"/v/way/t{number}"),
                *("--runtime", runtime, "busybox", "true"),
            )
    made = list(outside.iterdir())
    assert not made or makes_folders_outside(runtime)
    assert all(path.is_dir() and not list(path.iterdir()) for path in made)
    assert Path("/proc/self/mountinfo").read_text().count(str(outside)) == before


def test_parts_of_volumes_that_are_swapped_meanwhile(clean: Daemon, api: Api, tmp_path: Path) -> None:
    """CVE-2021-25741: a subpath that is a link out of its volume, now and then."""
    (tmp_path / "secret").write_text("host")
    api.ok("POST", "/volumes/create", {"Name": "parts"})
    tree = Path(api.ok("GET", "/volumes/parts")["Mountpoint"])
    (tree / "sub").mkdir()
    (tree / "out").symlink_to("../" * 20 + str(tmp_path)[1:])
    mount = {"Type": "volume", "Source": "parts", "Target": "/m", "VolumeOptions": {"Subpath": "sub"}}
    for wall in WALLS:
        body = {"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {"Isolation": wall, "Mounts": [mount]}}
        with swapping(tree / "sub", tree / "out"):
            for _ in range(20 if wall == "container" else 5):
                name = api.ok("POST", "/containers/create", body)["Id"]
                if api("POST", f"/containers/{name}/start").status == 204:
                    assert "secret" not in clean.cli("exec", name, "ls", "/m").stdout
                api("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_what_hides_paths_is_no_link(clean: Daemon, runtime: str) -> None:
    """CVE-2025-31133 and -52565: a volume on /dev, whose `null` and `console` lead to what they are to hide."""
    clean.ok("volume", "create", "dev")
    tree = Path(clean.ok("volume", "inspect", "--format", "{{.Mountpoint}}", "dev"))
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    look = "head -c 64 /proc/kcore | wc -c; (echo x > /proc/kcore) 2>/dev/null; cat /proc/kcore | head -c 200; true"
    (tree / "null").symlink_to("/proc/sys/kernel/core_pattern")
    (tree / "console").symlink_to("/proc/sys/kernel/core_pattern")
    for flags in ((), ("-t",)):
        done = clean.cli("run", "--rm", "--runtime", runtime, *flags, "-v", "dev:/dev", "busybox", "sh", "-c", look)
        assert pattern.strip() not in done.stdout or not pattern.strip()
        assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern
    (tree / "null").unlink()
    done = clean.cli("run", "--rm", "--runtime", runtime, "-v", "dev:/dev", "busybox", "sh", "-c", look)
    assert done.returncode != 0 or done.stdout.split()[:1] == ["0"], "what is to be hidden is not"
    (tree / "null").symlink_to("/proc/sysrq-trigger")
    (tree / "plain").write_text("")
    with swapping(tree / "null", tree / "plain"):
        for _ in range(10):
            clean.cli("run", "--rm", "--runtime", runtime, "-v", "dev:/dev", "busybox", "sh", "-c", look)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/proc/sys", "/proc/self", "/way", "/way/sys/x"])
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_what_the_runtime_writes_to_is_the_kernels(clean: Daemon, runtime: str, target: str) -> None:
    """CVE-2025-52881: a mount over /proc takes what the runtime writes there (labels, sysctls) somewhere else."""
    clean.ok("volume", "create", "proc")
    tree = Path(clean.ok("volume", "inspect", "--format", "{{.Mountpoint}}", "proc"))
    for path in ("self/attr", "sys/net/ipv4", "sys/kernel"):
        (tree / path).mkdir(parents=True, exist_ok=True)
    (tree / "sys/net/ipv4/ip_forward").write_text("untouched")
    clean.ok("run", "--name", "maker", "busybox", "ln", "-s", "../proc", "/way")
    clean.ok("commit", "maker", "way")
    flags = ("--rm", "--runtime", runtime, "--sysctl", "net.ipv4.ip_forward=0", "-v", f"proc:{target}")
    done = clean.cli("run", *flags, "way", "true")
    clean.ok("rm", "-f", "maker")
    clean.ok("rmi", "-f", "way")
    assert done.returncode in (125, 126), "a mount over the kernel's own files is refused"
    assert "inside /proc" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (tree / "sys/net/ipv4/ip_forward").read_text() == "untouched"


# -- 17: cp ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wall", WALLS)
def test_links_that_are_swapped_while_files_are_copied(clean: Daemon, api: Api, wall: str, tmp_path: Path) -> None:
    """CVE-2018-15664: the container exchanges a directory for a link to the host's, in both directions."""
    secret, target = tmp_path / "secret", tmp_path / "target"
    secret.write_text("host")
    target.mkdir()
    swap = (
        f"mkdir -p /d/a; echo mine > /d/a/secret; ln -s {tmp_path} /d/b; "
        "while :; do mv /d/a /d/c; mv /d/b /d/a; mv /d/a /d/b; mv /d/c /d/a; done"
    )
    run(clean, wall, "-d", "--name", "swap", "busybox", "sh", "-c", swap)
    source = tmp_path / "source"
    source.write_text("planted")
    for number in range(30):
        done = clean.cli("cp", "swap:/d/a/secret", "-")
        assert "host" not in done.stdout
        clean.cli("cp", str(source), f"swap:/d/a/p{number}")
        try:
            body = api("GET", "/containers/swap/archive?path=/d/a/").body
        except http.client.IncompleteRead as cut:
            # What went away while it was packed ends the stream short of its end, so that nobody takes it for whole.
            body = cut.partial
        assert b"host\0" not in body
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "source", "target"]
    assert secret.read_text() == "host"


# -- 19: users and host files ------------------------------------------------------------------------


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize(
    "trap",
    ["ln -sf /proc/1/root/etc/shadow /etc/passwd", "rm /etc/passwd; busybox mkfifo /etc/passwd",
     "ln -sf /dev/zero /etc/passwd", "ln -sf /etc/passwd /etc/passwd",
     "yes web:x:0:0::/:/bin/sh | head -c 30000000 > /etc/passwd"],
    ids=["link", "fifo", "endless", "loop", "huge"],
)  # fmt: skip
def test_a_hostile_list_of_users(clean: Daemon, wall: str, trap: str) -> None:
    run(clean, wall, "-d", "--name", "users", "busybox", "sh", "-c", f"{trap}; echo set; sleep 1000")
    deadline = time.monotonic() + 20
    while clean.cli("logs", "users").stdout != "set\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = memory(clean)
    begun = time.monotonic()
    done = clean.cli("exec", "--user", "web", "users", "grep", "^Uid:", "/proc/self/status")
    assert done.returncode != 0 or done.stdout.split()[1] in ("0", "1000")
    assert clean.ok("exec", "--user", "12345", "users", "grep", "^Uid:", "/proc/self/status").split()[1] == "12345"
    assert time.monotonic() - begun < 15
    assert memory(clean) < before + (64 << 20)
    assert clean.ok("exec", "users", "echo", "alive") == "alive"
    assert json.loads(clean.ok("inspect", "users"))[0]["State"]["Running"]


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize(
    "body",
    [
        {"Hostname": "a\n6.6.6.6 bank"},
        {"Domainname": "a\n6.6.6.6 bank"},
        {"HostConfig": {"ExtraHosts": ["a\n6.6.6.6 bank:1.2.3.4"]}},
        {"HostConfig": {"ExtraHosts": ["a:1.2.3.4\n6.6.6.6 bank"]}},
        {"HostConfig": {"ExtraHosts": ["a 6.6.6.6 bank:1.2.3.4"]}},
        {"HostConfig": {"Dns": ["1.1.1.1\nsearch bank"]}},
        {"HostConfig": {"DnsSearch": ["a\nnameserver 6.6.6.6"]}},
        {"HostConfig": {"DnsOptions": ["a\nnameserver 6.6.6.6"]}},
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a\n6.6.6.6 bank"]}}}},
    ],
    ids=lambda body: next(iter(body)) + str(next(iter(body.values())))[:24],
)
def test_no_line_of_ones_own_in_the_hosts_files(api: Api, wall: str, body: dict[str, Any]) -> None:
    host = {"Isolation": wall, **body.get("HostConfig", {})}
    answer = api("POST", "/containers/create", {"Image": "busybox", **body, "HostConfig": host})
    assert answer.status == 400, answer.body
    assert "\n" not in answer.json()["message"]


@pytest.mark.parametrize("wall", WALLS)
def test_lines_in_variables_and_labels_stay_there(clean: Daemon, api: Api, wall: str) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", 'cat /etc/hosts /etc/resolv.conf /etc/hostname; echo "[$A]"; env | grep -c ^B='],
        "Env": ["A=x\nB=1"],
        "Labels": {"a\nb": "c\nd"},
        "HostConfig": {"Isolation": wall},
    }
    name = api.ok("POST", "/containers/create", body)["Id"]
    api.ok("POST", f"/containers/{name}/start")
    api.ok("POST", f"/containers/{name}/wait")
    assert "[x\nB=1]" in clean.cli("logs", name).stdout
    assert api.ok("GET", f"/containers/{name}/json")["Config"]["Labels"] == {"a\nb": "c\nd"}


# -- 20: sysctls and cgroups ---------------------------------------------------------------------------

SYSCTLS = [
    ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
    ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x"),
    ("kernel.shm_rmid_forced+kernel.core_pattern", "1"),
    ("net.ipv4.ip_forward=1,kernel.core_pattern", "|/x"),
    ("net/../kernel/core_pattern", "|/x"),
    ("net.ipv4/../../kernel/core_pattern", "|/x"),
    ("net.././../kernel.core_pattern", "|/x"),
    ("fs.mqueue./../../kernel/core_pattern", "|/x"),
    ("kernel.core_pattern", "|/x"),
    ("kernel/core_pattern", "|/x"),
]


@pytest.mark.parametrize(("name", "value"), SYSCTLS, ids=repr)
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_no_sysctl_of_the_host(clean: Daemon, api: Api, runtime: str, name: str, value: str) -> None:
    """CVE-2022-0811."""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    host = {"Runtime": runtime, "Sysctls": {name: value}}
    answer = api("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host})
    if answer.status == 201:
        answer = api("POST", f"/containers/{answer.json()['Id']}/start")
    assert answer.status == 400, answer.body
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_no_way_to_a_release_agent(clean: Daemon) -> None:
    """CVE-2022-0492: by a user namespace of one's own, for run and for exec, and by the agents that are there."""
    script = (
        "busybox unshare -r -m sh -c 'mount -t cgroup -o rdma x /tmp && echo mounted'; "
        "busybox unshare -r -m -C sh -c 'mount -t cgroup -o memory x /tmp && echo mounted'; "
        "for f in $(find /sys/fs/cgroup -name release_agent 2>/dev/null); do (echo /x > $f) 2>/dev/null && echo $f; "
        "done; true"
    )
    for runtime in ("crun", "runc"):
        name = f"agent-{runtime}"
        assert clean.cli("run", "--name", name, "--runtime", runtime, "busybox", "sh", "-c", script).stdout == ""
        clean.ok("run", "-d", "--name", f"{name}-x", "--runtime", runtime, "busybox", "sleep", "1000")
        assert clean.cli("exec", f"{name}-x", "sh", "-c", script).stdout == ""


# -- 21: what inspect says is what is ------------------------------------------------------------------

RIGHTS: list[dict[str, Any]] = [
    {},
    {"CapAdd": ["NET_ADMIN", "CAP_SYS_PTRACE"]},
    {"CapDrop": ["ALL"]},
    {"CapDrop": ["ALL"], "CapAdd": ["CHOWN"]},
    {"CapDrop": ["MKNOD", "NET_RAW"]},
    {"CapAdd": ["ALL"]},
    {"Privileged": True},
    {"SecurityOpt": ["no-new-privileges"]},
    {"SecurityOpt": ["seccomp=unconfined"]},
    {"SecurityOpt": ["systempaths=unconfined"]},
    {"MaskedPaths": ["/proc/uptime"], "ReadonlyPaths": ["/proc/irq"]},
]
DEFAULT = frozenset(
    """CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
    AUDIT_WRITE""".split()
)
"""docs.docker.com/engine/security: what a container has that asks for nothing."""


def told(inspected: dict[str, Any], *, privileged: bool) -> tuple[frozenset[str], bool, bool]:
    """The capabilities, the filter and no-new-privileges that an inspect document speaks of."""
    host = inspected["HostConfig"]
    everything = decode((1 << 41) - 1)
    added = {name.removeprefix("CAP_") for name in host["CapAdd"] or []}
    dropped = {name.removeprefix("CAP_") for name in host["CapDrop"] or []}
    found = {f"CAP_{name}" for name in (added - {"ALL"}) | (set() if "ALL" in dropped else DEFAULT - dropped)}
    if privileged or "ALL" in added:
        found = set(everything)
    options = host["SecurityOpt"] or []
    filtered = not privileged and "seccomp=unconfined" not in options
    return frozenset(found), filtered, "no-new-privileges" in options


def status(text: str) -> dict[str, str]:
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in text.splitlines()}


@pytest.mark.parametrize("host", RIGHTS, ids=str)
@pytest.mark.parametrize("runtime", ["crun", "runc", "vm"])
def test_rights_are_those_that_inspect_tells(clean: Daemon, api: Api, runtime: str, host: dict[str, Any]) -> None:
    """By the kernel's own word, of the first process and of execs."""
    wall = {"Isolation": "vm"} if runtime == "vm" else {"Runtime": runtime}
    created = api(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {**wall, **host}}
    )
    if created.status == 501:
        assert runtime == "vm"
        assert "MaskedPaths" in created.json()["message"]
        return
    name = created.json()["Id"]
    assert api("POST", f"/containers/{name}/start").status == 204
    inspected = api.ok("GET", f"/containers/{name}/json")
    privileged = inspected["HostConfig"]["Privileged"]
    if runtime == "vm":
        first = clean.ok("exec", name, "cat", "/proc/1/status")
        bounding = decode((1 << 41) - 1)
    else:
        first = Path(f"/proc/{inspected['State']['Pid']}/status").read_text()
        bounding = decode(int(status(Path("/proc/self/status").read_text())["CapBnd"], 16))
    plain = clean.ok("exec", name, "cat", "/proc/self/status")
    more = clean.ok("exec", "--privileged", name, "cat", "/proc/self/status")
    for text, everything in ((first, privileged), (plain, privileged), (more, True)):
        found = status(text)
        rights, filtered, fixed = told(inspected, privileged=everything)
        assert decode(int(found["CapEff"], 16)) == rights & bounding
        assert decode(int(found["CapBnd"], 16)) == rights & bounding
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
        if runtime != "vm" and text is not more:
            assert found["Seccomp"] == ("2" if filtered else "0")
        assert found["NoNewPrivs"] == str(int(fixed))
    if runtime != "vm":
        mounted = Path(f"/proc/{inspected['State']['Pid']}/mountinfo").read_text()
        points = {line.split()[4] for line in mounted.splitlines()}
        masked, fixed_paths = (inspected["HostConfig"][name] or [] for name in ("MaskedPaths", "ReadonlyPaths"))
        assert {path for path in (*masked, *fixed_paths) if Path(path).exists()} <= points
        if not masked:
            assert "/proc/kcore" not in points


# -- 22: exhaustion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wall", WALLS)
def test_a_bomb_of_processes(clean: Daemon, wall: str) -> None:
    """In the first process and in an exec: others and the daemon go on, and it can be removed."""
    bomb = "f() { f | f & }; f; sleep 100"
    run(clean, wall, "-d", "--name", "bomb", "--pids-limit", "100", "busybox", "sh", "-c", bomb)
    run(clean, wall, "-d", "--name", "inner", "--pids-limit", "100", "busybox", "sleep", "1000")
    clean.cli("exec", "-d", "inner", "sh", "-c", bomb)
    begun = time.monotonic()
    assert clean.ok("run", "--rm", "busybox", "echo", "others") == "others"
    assert {"bomb", "inner"} <= set(clean.ok("ps", "--format", "{{.Names}}").split())
    clean.ok("rm", "-f", "bomb", "inner")
    assert time.monotonic() - begun < 60
    assert clean.ok("ps", "-q") == ""


def allocated(folder: Path) -> int:
    """Bytes of the logs below a folder, while they are moved aside."""
    total = 0
    for path in folder.glob("*.log*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@pytest.mark.parametrize("wall", WALLS)
def test_a_flood_of_logs(clean: Daemon, api: Api, wall: str) -> None:
    """The daemon's memory does not grow with it, and the files stay near their limit."""
    limits = ("--log-opt", "max-size=1m", "--log-opt", "max-file=2")
    before = memory(clean)
    run(clean, wall, "-d", "--name", "flood", *limits, "busybox", "yes", "x" * 500)
    folder = Path(clean.inspect("flood")["LogPath"]).parent
    most, largest, begun = 0, 0, time.monotonic()
    while (passed := time.monotonic() - begun) < 6:
        assert api("GET", "/containers/flood/logs?stdout=1&tail=1").status == 200
        most = max(most, memory(clean))
        # It is seen to be a flood by then: an uncovered second would be several hundred megabytes.
        if passed > 3:
            largest = max(largest, allocated(folder))
        time.sleep(0.1)
    clean.ok("rm", "-f", "flood")
    assert most < before + (64 << 20), f"{before >> 20} MB before, {most >> 20} MB in it"
    assert largest < 128 << 20, f"{largest >> 20} MB of logs"
    deadline = time.monotonic() + 10
    while folder.exists():
        assert time.monotonic() < deadline, "the log is still there"
        time.sleep(0.05)


@pytest.mark.parametrize("wall", WALLS)
def test_a_flood_of_output_of_an_exec(clean: Daemon, api: Api, wall: str) -> None:
    """CVE-2022-1708: nobody reads it; or a health check says it, of which little is kept."""
    check = {"Test": ["CMD-SHELL", "yes x | head -c 20000000"], "Interval": 500_000_000, "Timeout": 20_000_000_000}
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": check, "HostConfig": {"Isolation": wall}}
    name = api.ok("POST", "/containers/create", body)["Id"]
    api.ok("POST", f"/containers/{name}/start")
    before = memory(clean)
    channels = []
    for _ in range(3):
        identity = api.ok("POST", f"/containers/{name}/exec", {"Cmd": ["yes"], "AttachStdout": True})["Id"]
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(api.path)
        request = b'{"Detach": false}'
        head = f"POST /exec/{identity}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        channel.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(request) + request)
        channels.append(channel)
    most, deadline = 0, time.monotonic() + 60
    while not (log := api.ok("GET", f"/containers/{name}/json")["State"]["Health"]["Log"]):
        most = max(most, memory(clean))
        assert time.monotonic() < deadline
        time.sleep(0.1)
    most = max(most, memory(clean))
    for channel in channels:
        channel.close()
    assert most < before + (64 << 20), f"{before >> 20} MB before, {most >> 20} MB in it"
    assert all(len(entry["Output"]) <= 4096 + 16 for entry in log)

"""The command line starts the daemon when its own socket is meant and nobody listens there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.living import CLI, ROOT, mounts_below


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose daemon is a private one; it is stopped in the end."""
    run_root = tmp_path / "run"
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith(("BASTIDE_", "DOCKER_"))},
        "BASTIDE_RUN_ROOT": str(run_root),
        "BASTIDE_DATA_ROOT": str(tmp_path / "data"),
        "BASTIDE_BRIDGE": "bstlaunch0",
        "BASTIDE_BRIDGE_SUBNET": "10.76.0.0/16",
        "BASTIDE_FIREWALL_TABLE": "bastide_launch",
        "BASTIDE_CGROUP_PARENT": "bastide-launch",
    }
    for process in daemons(run_root):
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while daemons(run_root):
        assert time.monotonic() < deadline, "the daemon does not stop"
        time.sleep(0.05)
    subprocess.run(["ip", "link", "delete", "bstlaunch0"], capture_output=True, check=False)
    for family in ("inet", "bridge", "ip", "ip6"):
        subprocess.run(["nft", "delete", "table", family, "bastide_launch"], capture_output=True, check=False)
    for place in reversed(mounts_below(tmp_path)):
        subprocess.run(["umount", "-l", place], check=False)


def daemons(run_root: Path) -> list[int]:
    """Processes that have this run root in their environment and are daemons."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"BASTIDE_RUN_ROOT={run_root}".encode() in environment and b"bastide.daemon" in words:
            found.append(int(folder.name))
    return found


def bastide(surroundings: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *words], env=surroundings, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_started_once_by_many(surroundings: dict[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: bastide(surroundings, "version", "-f", "{{.Server.Version}}"), range(4)))
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 4
    run_root = Path(surroundings["BASTIDE_RUN_ROOT"])
    (process,) = daemons(run_root)
    assert os.getsid(process) == process, "it outlives the terminal"
    assert not list(run_root.glob("ready.*"))
    assert bastide(surroundings, "ps", "-q").returncode == 0
    assert daemons(run_root) == [process]
    environment = Path(f"/proc/{process}/environ").read_text()
    assert "PYTEST_CURRENT_TEST" not in environment, "the user's environment stays the user's"


def test_why_it_did_not_start(surroundings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    done = bastide(surroundings, "ps")
    assert done.returncode == 125
    assert done.stderr.startswith("the daemon did not start: ")
    assert f"(see {surroundings['BASTIDE_RUN_ROOT']}/bastided.log)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("variable", ["BASTIDE_HOST", "DOCKER_HOST"])
def test_not_when_another_was_named(surroundings: dict[str, str], tmp_path: Path, variable: str) -> None:
    done = bastide({**surroundings, variable: f"unix://{tmp_path}/other.sock"}, "ps")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Cannot connect to the bastide daemon at unix://{tmp_path}/other.sock")
    assert daemons(Path(surroundings["BASTIDE_RUN_ROOT"])) == []


def test_socket_activation_and_readiness(surroundings: dict[str, str], tmp_path: Path) -> None:
    """What systemd does for a socket unit and `Type=notify`: sd_listen_fds(3), sd_notify(3)."""
    address, told = tmp_path / "activated.sock", tmp_path / "notify"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        listening.bind(str(address))
        listening.listen()
        notified.bind(str(told))
        notified.settimeout(30)
        # The shell becomes the daemon: LISTEN_PID must be its own pid.
        script = f'exec 3<&{listening.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -m bastide.daemon'
        environment = surroundings | {"NOTIFY_SOCKET": str(told), "PYTHONPATH": str(ROOT / "src")}
        with subprocess.Popen(
            ["bash", "-c", script, sys.executable],
            env=environment,
            pass_fds=[listening.fileno()],
            stderr=subprocess.PIPE,
        ) as daemon:
            try:
                assert notified.recv(100) == b"READY=1"
                asked = bastide(
                    surroundings | {"BASTIDE_HOST": f"unix://{address}"}, "version", "--format", "{{.Server.Os}}"
                )
                assert (asked.returncode, asked.stdout) == (0, "linux\n"), asked.stderr
                assert not (tmp_path / "run" / "bastide.sock").exists()
            finally:
                daemon.terminate()
            assert notified.recv(100) == b"STOPPING=1"
        assert daemon.returncode == 0


def test_a_host_without_cgroups(surroundings: dict[str, str], tmp_path: Path, archive: Path) -> None:
    """The daemon serves; what needs a cgroup is refused in one line and leaves nothing."""
    hidden = ["unshare", "--mount", "sh", "-c", 'umount --recursive /sys/fs/cgroup && exec "$0" -m bastide.daemon']
    with subprocess.Popen([*hidden, sys.executable], env=surroundings | {"PYTHONPATH": str(ROOT / "src")}) as daemon:
        try:
            deadline = time.monotonic() + 30
            while not (tmp_path / "run" / "bastide.sock").exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            there = surroundings | {"BASTIDE_HOST": f"unix://{tmp_path}/run/bastide.sock"}
            assert bastide(there, "load", "--input", str(archive)).returncode == 0
            refused = bastide(there, "run", "--rm", "busybox", "true")
            assert refused.returncode == 125
            assert "no cgroup controllers: mount cgroup2 on /sys/fs/cgroup" in refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1
            assert bastide(there, "ps", "-aq").stdout == ""
        finally:
            daemon.terminate()

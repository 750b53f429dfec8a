"""The main job behind both walls: the same image, the same command line, the same answers."""

from __future__ import annotations

import gzip
import platform
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import Daemon

WALLS = ["container", "vm", *(["gvisor"] if shutil.which("runsc") else [])]


@pytest.fixture(params=WALLS)
def wall(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Daemon]:
    """A daemon whose `run` uses one of the walls."""
    yield Walled(daemon, request.param)
    daemon.clear()


class Walled:
    """`run` and `create` with an isolation; everything else is the daemon's."""

    def __init__(self, daemon: Daemon, isolation: str) -> None:
        self.daemon, self.isolation = daemon, isolation

    def __getattr__(self, name: str) -> object:
        return getattr(self.daemon, name)

    def run(self, *args: str, stdin: bytes | None = None, check: bool = True, timeout: float = 180):  # type: ignore[no-untyped-def]
        """`bastide run --isolation … ARGS`."""
        return self.daemon.cli("run", "--isolation", self.isolation, *args, stdin=stdin, check=check, timeout=timeout)


def until(condition, seconds: float = 30) -> None:  # type: ignore[no-untyped-def]
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def test_output_and_exit_code(wall: Walled) -> None:
    done = wall.run("--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_the_kernel_is_shared_or_not(wall: Walled) -> None:
    inside = wall.run("--rm", "busybox", "uname", "-v").stdout.strip()
    assert (inside == platform.version()) is (wall.isolation == "container")


def test_rm_leaves_nothing(wall: Walled) -> None:
    wall.run("--rm", "--name", "gone", "busybox", "true")
    assert "gone" not in wall.ok("ps", "-a")


@pytest.mark.parametrize(
    ("command", "code"), [("/nowhere", 127), ("nowhere", 127), ("/etc/passwd", 126), ("/etc", 126)]
)
def test_a_command_that_cannot_run(wall: Walled, command: str, code: int) -> None:
    done = wall.run("--rm", "busybox", command, check=False)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr
    assert wall.ok("ps", "-aq") == ""


def test_an_unknown_image_is_125(wall: Walled) -> None:
    done = wall.run("--rm", "--pull", "never", "no-such-image", "true", check=False)
    assert done.returncode == 125
    assert "No such image: no-such-image:latest" in done.stderr


def test_a_program_of_another_processor(wall: Walled, tmp_path: Path) -> None:
    """Whatever is said of its architecture, the kernel says what it thinks of it."""
    program = tmp_path / "foreign"
    # An ELF header for RISC-V (e_machine 243), which no wall here emulates unless it is asked to.
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 243, 1) + bytes(40))
    program.chmod(0o755)
    done = wall.run("--rm", "--name", "foreign", "-v", f"{program}:/foreign", "busybox", "/foreign", check=False)
    assert done.returncode != 0
    assert "exec format error" in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 1
    assert wall.cli("ps", "-aq", "--filter", "name=foreign").stdout == ""


def test_a_signal_is_128_and_more(wall: Walled) -> None:
    wall.run("-d", "--name", "target", "busybox", "sleep", "1000")
    wall.ok("kill", "target")
    assert wall.ok("wait", "target") == "137"


def test_environment_user_and_directory(wall: Walled) -> None:
    done = wall.run(
        "--rm", "-e", "A=one two", "-u", "web", "-w", "/tmp", "--hostname", "tower", "busybox",
        "sh", "-c", 'echo "$A $FROM_IMAGE $(id -u):$(id -g) $(id -G) $(pwd) $(hostname) $HOME"',
    )  # fmt: skip
    assert done.stdout == "one two yes 1000:1000 1000 2000 /tmp tower /home\n"


def test_an_unknown_user_is_refused(wall: Walled) -> None:
    done = wall.run("--rm", "-u", "nobody-here", "busybox", "true", check=False)
    assert done.returncode in (125, 126)
    assert "nobody-here" in done.stderr


def test_stdin_reaches_the_process_and_ends(wall: Walled) -> None:
    data = bytes(range(256)) * 4096
    done = wall.run("--rm", "-i", "busybox", "sha256sum", stdin=data)
    import hashlib

    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_large_output_is_whole(wall: Walled) -> None:
    done = wall.run("--rm", "busybox", "sh", "-c", "seq 1 200000")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 200001))


def test_logs_keep_both_streams(wall: Walled) -> None:
    wall.run("--name", "talker", "busybox", "sh", "-c", "echo one; echo two >&2; printf three")
    logs = wall.cli("logs", "talker")
    assert (logs.stdout, logs.stderr) == ("one\nthree", "two\n")
    assert wall.cli("logs", "--tail", "1", "talker").stdout == "three"


@pytest.mark.parametrize("compress", ["false", "true"])
def test_logs_are_rotated_and_read_on(wall: Walled, compress: str) -> None:
    options = ("max-size=20k", "max-file=2", f"compress={compress}", "labels=who", "env-regex=^FR", "tag={{.Name}}")
    wall.run(
        "-d", "--name", "wordy", "--label", "who=me", *(word for option in options for word in ("--log-opt", option)),
        "busybox", "sh", "-c", "seq 1 5000; sleep 4; echo end; sleep 1000",
    )  # fmt: skip
    folder = Path(wall.inspect("wordy")["LogPath"]).parent
    rotated = folder / ("container.log.1.gz" if compress == "true" else "container.log.1")
    until(lambda: rotated.exists())
    until(lambda: wall.cli("logs", "--tail", "1", "wordy").stdout == "end\n")
    # A writer that is slow fills more than the two files that are kept: what they hold is shown, without a gap.
    kept = gzip.decompress(rotated.read_bytes()).decode() if compress == "true" else rotated.read_text()
    # A line that was read in parts is kept in parts.
    entries = [line.split(" ", 3) for line in (kept + (folder / "container.log").read_text()).splitlines()]
    held = "".join(text if tag == "P" else f"{text}\n" for _, _, tag, text in entries).splitlines()
    assert wall.cli("logs", "wordy").stdout.splitlines() == held
    # The beginning of the first line may have gone with the file before.
    begun = int(held[1]) - 1
    assert str(begun).endswith(held[0])
    assert held[1:] == [*map(str, range(begun + 1, 5001)), "end"]
    assert wall.cli("logs", "--tail", "2", "wordy").stdout == "5000\nend\n"
    assert wall.cli("logs", "--details", "--tail", "1", "wordy").stdout == "FROM_IMAGE=yes,tag=wordy,who=me end\n"


def test_detached_exec_stop(wall: Walled) -> None:
    container = wall.run("-d", "--name", "long", "busybox", "sleep", "1000").stdout.strip()
    assert len(container) == 64
    assert wall.ok("exec", "long", "sh", "-c", "echo $((6*7)) $HOSTNAME") == f"42 {container[:12]}"
    assert wall.cli("exec", "long", "sh", "-c", "exit 3").returncode == 3
    assert wall.cli("exec", "long", "nowhere").returncode == 127
    assert wall.cli("exec", "-i", "long", "cat", stdin=b"typed").stdout == "typed"
    assert wall.isolation in wall.ok("ps")
    started = time.monotonic()
    wall.ok("stop", "--time", "1", "long")
    assert time.monotonic() - started < 8
    # gVisor's first process has no shield against signals that it does not handle.
    assert wall.inspect("long")["State"]["ExitCode"] == (143 if wall.isolation == "gvisor" else 137)
    wall.ok("start", "long")
    assert wall.inspect("long")["State"]["Running"] is True
    wall.ok("rm", "-f", "long")
    assert wall.cli("inspect", "long").returncode == 1


def test_what_is_written_survives_a_stop(wall: Walled) -> None:
    wall.run("-d", "--name", "keeper", "busybox", "sleep", "1000")
    wall.ok("exec", "keeper", "sh", "-c", "echo kept > /root/file; sync")
    wall.ok("stop", "--time", "0", "keeper")
    wall.ok("start", "keeper")
    assert wall.ok("exec", "keeper", "cat", "/root/file") == "kept"


def test_term_is_delivered(wall: Walled) -> None:
    wall.run(
        "-d",
        "--name",
        "polite",
        "busybox",
        "sh",
        "-c",
        "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done",
    )
    until(lambda: "up" in wall.ok("logs", "polite"))
    wall.ok("stop", "polite")
    assert wall.inspect("polite")["State"]["ExitCode"] == 5
    assert "bye" in wall.ok("logs", "polite")


def test_wait_tells_the_exit_code(wall: Walled) -> None:
    wall.run("-d", "--name", "short", "busybox", "sh", "-c", "sleep 0.5; exit 4")
    assert wall.ok("wait", "short") == "4"


def test_the_daemon_may_go_and_come(wall: Walled) -> None:
    wall.run("-d", "--name", "survivor", "busybox", "sh", "-c", "echo before; sleep 3; echo after; sleep 1000")
    until(lambda: "before" in wall.ok("logs", "survivor"))
    pid = wall.inspect("survivor")["State"]["Pid"]
    wall.daemon.stop(9)
    time.sleep(4)
    wall.daemon.start()
    state = wall.inspect("survivor")["State"]
    assert (state["Running"], state["Pid"]) == (True, pid)
    assert wall.ok("logs", "survivor") == "before\nafter"
    assert wall.ok("exec", "survivor", "echo", "there") == "there"


def test_an_end_that_nobody_saw(wall: Walled) -> None:
    wall.run("-d", "--name", "unseen", "busybox", "sh", "-c", "sleep 2; exit 6")
    wall.daemon.stop(9)
    time.sleep(4)
    wall.daemon.start()
    until(lambda: wall.inspect("unseen")["State"]["Status"] == "exited")
    assert wall.inspect("unseen")["State"]["ExitCode"] == 6


@pytest.mark.parametrize("wall", ["container", "vm"], indirect=True)
def test_network_names_and_ports(wall: Walled) -> None:
    wall.ok("network", "create", "meadow")
    try:
        wall.run("-d", "--name", "server", "--network", "meadow", "-p", "127.0.0.1:18080:80", "busybox",
                 "httpd", "-f", "-h", "/var/www")  # fmt: skip
        until(lambda: b"hello" in fetch(18080))
        for isolation in ("container", "vm"):
            done = wall.cli(
                "run",
                "--rm",
                "--isolation",
                isolation,
                "--network",
                "meadow",
                "busybox",
                "wget",
                "-qO-",
                "http://server/",
            )
            assert done.stdout == "hello from the image\n", done.stderr
    finally:
        wall.daemon.clear()
        wall.ok("network", "rm", "meadow")


def fetch(port: int) -> bytes:
    """What an HTTP server on loopback answers, empty when nobody does."""
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as channel:
            channel.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := channel.recv(65536):
                answer += piece
            return answer
    except OSError:
        return b""


def test_no_network(wall: Walled) -> None:
    done = wall.run("--rm", "--network", "none", "busybox", "sh", "-c", "ls /sys/class/net || ip -o link | wc -l")
    assert "eth0" not in done.stdout


def test_memory_limit_is_felt(wall: Walled) -> None:
    done = wall.run(
        "--rm", "--memory", "64m", "busybox", "sh", "-c", "tail /dev/zero; exit 9", check=False, timeout=300
    )
    assert done.returncode != 0
    assert wall.ok("ps", "-aq") == ""


def test_a_name_that_is_taken(wall: Walled) -> None:
    wall.run("-d", "--name", "one", "busybox", "sleep", "1000")
    done = wall.run("-d", "--name", "one", "busybox", "true", check=False)
    assert done.returncode == 125
    assert 'The container name "/one" is already in use by container' in done.stderr

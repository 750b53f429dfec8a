"""`docker run` and `docker create`: what a container is asked to be is what it is."""

from __future__ import annotations

import re
import time

import pytest
from tests.clients.conftest import Docker, shared_kernel

# Flags, the command, and what its output has to be (a regular expression over the whole of it).
SEEN_INSIDE = [
    ([], "echo hello", "hello"),
    (["-e", "A=1", "--env", "B=x y"], 'echo "$A-$B"', "1-x y"),
    (["-e", "FROM_IMAGE=no"], "echo $FROM_IMAGE", "no"),
    ([], "echo $FROM_IMAGE", "yes"),
    (["-w", "/tmp"], "pwd", "/tmp"),
    (["-w", "/made/up"], "pwd", "/made/up"),
    (["-h", "here"], "hostname", "here"),
    (["--hostname", "here", "--domainname", "example"], "cat /etc/hosts", r"(?s).*\s(here\.example here|here)\b.*"),
    (["-u", "1000"], "id -u", "1000"),
    (["-u", "web"], "id -u; id -g", "1000\n1000"),
    (["-u", "web:extra"], "id -g", "2000"),
    (["-u", "5:6"], "id -u; id -g", "5\n6"),
    (["--group-add", "2000"], "id -G", r"0 .*2000.*|0 2000"),
    (["--add-host", "db:10.1.2.3"], "grep -w db /etc/hosts", r"10\.1\.2\.3\s+db"),
    (["--dns", "10.9.8.7", "--network", "none"], "cat /etc/resolv.conf", r"(?s).*nameserver 10\.9\.8\.7.*|.*"),
    (["--dns", "10.9.8.7"], "cat /etc/resolv.conf", r"(?s).*nameserver 10\.9\.8\.7.*"),
    (["--dns-search", "example.test"], "cat /etc/resolv.conf", r"(?s).*search example\.test.*"),
    (["--dns-option", "ndots:3"], "cat /etc/resolv.conf", r"(?s).*options.*ndots:3.*"),
    (["--tmpfs", "/scratch"], "grep ' /scratch ' /proc/mounts", r"tmpfs /scratch tmpfs rw,.*noexec.*"),
    (["--tmpfs", "/scratch:size=1m,exec"], "df -k /scratch | tail -n1", r"tmpfs\s+1024\s.*"),
    (["--mount", "type=tmpfs,dst=/scratch,tmpfs-mode=700"], "stat -c %a /scratch", "700"),
    (["--read-only"], "touch /x 2>&1 || echo refused", r"(?s).*Read-only file system.*refused"),
    (["--read-only", "--tmpfs", "/tmp"], "touch /tmp/x && echo fine", "fine"),
    (["--cap-drop", "ALL"], "grep CapEff /proc/self/status", r"CapEff:\s+0000000000000000"),
    (["--cap-drop", "ALL", "--cap-add", "CHOWN"], "grep CapEff /proc/self/status", r"CapEff:\s+0000000000000001"),
    ([], "grep CapEff /proc/self/status", r"CapEff:\s+00000000a80425fb"),
    (["--cap-add", "NET_ADMIN"], "grep CapEff /proc/self/status", r"CapEff:\s+00000000a80435fb"),
    (["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", r"NoNewPrivs:\s+1"),
    shared_kernel([], "grep -w Seccomp: /proc/self/status", r"Seccomp:\s+2"),
    (["--security-opt", "seccomp=unconfined"], "grep -w Seccomp: /proc/self/status", r"Seccomp:\s+0"),
    (["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn", "100\n200"),
    (["--shm-size", "8m"], "df -k /dev/shm | tail -n1", r"shm\s+8192\s.*"),
    (["--sysctl", "net.ipv4.ip_unprivileged_port_start=77"], "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "77"),
    (["--network", "none"], "ls /sys/class/net", "lo"),
    (["--init"], "cat /proc/1/cmdline | tr '\\0' ' '", r".*init.*"),
    shared_kernel(["--pid", "host"], "ls /proc | grep -c '^[0-9]'", r"[0-9]+"),
    shared_kernel(["--uts", "host"], "hostname", r".+"),
    shared_kernel(["--device", "/dev/null:/dev/other"], "test -c /dev/other && echo device", "device"),
    (["--entrypoint", "echo"], "swallowed", "-c swallowed"),
    (["--privileged"], "grep -c 'CapEff.*a80425fb' /proc/self/status || true", "0"),
    ([], "echo to stdout; echo to stderr >&2", "to stdout"),
    (["-i"], "cat", "from stdin"),
    (["--pids-limit", "50"], "echo limited", "limited"),
    (["--memory", "64m"], "echo limited", "limited"),
    (["--cpus", "0.5"], "echo limited", "limited"),
    (["--cpu-shares", "512", "--cpuset-cpus", "0"], "echo limited", "limited"),
    (["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
    (["--label", "a=b", "-l", "c"], "echo labelled", "labelled"),
    (["--annotation", "a=b"], "echo annotated", "annotated"),
    (["--stop-signal", "SIGINT", "--stop-timeout", "1"], "echo stops", "stops"),
    (["--mac-address", "02:42:11:22:33:44"], "cat /sys/class/net/eth0/address", "02:42:11:22:33:44"),
    shared_kernel(["--ipc", "none"], "ls -d /dev/shm 2>&1 || echo none", r"(?s).*none"),
    (["--cgroupns", "private"], "echo own", "own"),
    (["--platform", "linux/amd64"], "echo native", "native"),
    (["--pull", "never"], "echo here", "here"),
]


@pytest.mark.parametrize(("flags", "command", "expected"), SEEN_INSIDE, ids=lambda value: str(value)[:48])
def test_seen_inside(docker: Docker, flags: list[str], command: str, expected: str) -> None:
    done = docker(
        "run",
        "--rm",
        *flags,
        "busybox",
        *(["-c"] if "--entrypoint" in flags else ["sh", "-c"]),
        command,
        stdin="from stdin",
    )
    assert re.fullmatch(expected, done.out.strip()), done.all


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["busybox", "true"], 0, ""),
        (["busybox", "false"], 1, ""),
        (["busybox", "sh", "-c", "exit 42"], 42, ""),
        (["busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, ""),
        (["busybox", "nonexistent"], 127, "executable file not found"),
        (["busybox", "/etc"], 126, "(?i)(permission denied|is a directory)"),
        (["busybox", "/etc/passwd"], 126, "(?i)permission denied"),
        (["--pull", "never", "no-such-image:1"], 125, "No such image: no-such-image:1|pull access denied"),
        (["--name", "-bad", "busybox"], 125, "Invalid container name"),
        (["-w", "relative", "busybox"], 125, "working directory 'relative' is invalid"),
        (["-u", "nobody-here", "busybox"], 125, "nobody-here"),
        (["--memory", "1k", "busybox"], 125, "Minimum memory limit allowed is 6MB"),
        (["--network", "no-such", "busybox"], 125, "network no-such not found"),
        (["--isolation", "hyperv", "busybox"], 125, "(?i)isolation"),
        (["--runtime", "no-such", "busybox"], 125, "(?i)runtime"),
        (["--cap-add", "NONSENSE", "busybox"], 125, "(?i)capability"),
        (["--restart", "always", "--rm", "busybox"], 125, "(?i)conflicting options"),
        (["-p", "99999:80", "busybox"], 125, "(?i)invalid"),
        (["-v", "relative/path:/x", "busybox"], 125, "(?i)invalid"),
        (["--log-driver", "nonsense", "busybox"], 125, "(?i)nonsense"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_exit_codes_and_messages(docker: Docker, args: list[str], code: int, message: str) -> None:
    done = docker("run", "--rm", *args, code=code)
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err


def test_a_failed_run_leaves_its_container_and_rm_removes_it(docker: Docker) -> None:
    docker("run", "--name", "broken", "busybox", "nonexistent", code=127)
    assert docker.field("broken", "{{.State.Status}}") == "created"
    assert docker.field("broken", "{{.State.ExitCode}}") == "127"
    docker("run", "--rm", "busybox", "nonexistent", code=127)
    docker.until(lambda: len(docker.ok("ps", "-aq").split()) == 1, "the removal")


def test_names_are_taken_once(docker: Docker, sleeper: str) -> None:
    done = docker("run", "--name", sleeper, "busybox", code=125)
    assert re.search(
        r'Conflict\. The container name "/sleeper" is already in use by container "[0-9a-f]{64}"', done.err
    )


def test_detached(docker: Docker) -> None:
    made = docker.ok("run", "-d", "busybox", "sleep", "1000")
    assert re.fullmatch(r"[0-9a-f]{64}", made)
    assert docker.field(made[:12], "{{.State.Running}}") == "true"


def test_cidfile(docker: Docker, tmp_path: object) -> None:
    path = f"{tmp_path}/id"
    made = docker.ok("run", "-d", "--cidfile", path, "busybox", "true")
    with open(path) as file:
        assert file.read() == made


def test_both_streams_are_kept_apart(docker: Docker) -> None:
    done = docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")


def test_much_output_arrives_whole(docker: Docker) -> None:
    done = docker("run", "--rm", "busybox", "seq", "1", "200000")
    assert done.lines[-1] == "200000"
    assert len(done.lines) == 200000


def test_much_input_arrives_whole(docker: Docker) -> None:
    done = docker("run", "--rm", "-i", "busybox", "wc", "-c", stdin=b"x" * 5_000_000)
    assert done.out.strip() == "5000000"


def test_signals_are_passed_on(docker: Docker) -> None:
    process = docker.begin(
        "run",
        "--rm",
        "--name",
        "trap",
        "busybox",
        "sh",
        "-c",
        "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.1; done",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.stdout.readline() == b"got\n"
    assert process.wait(20) == 7


def test_rm_removes_the_anonymous_volume(docker: Docker) -> None:
    docker("run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
    docker.until(lambda: not docker.ok("volume", "ls", "-q"), "the removal")


def test_named_volume_keeps_its_data(docker: Docker) -> None:
    docker("run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "echo kept > /data/x")
    assert docker.ok("run", "--rm", "-v", "keep:/data:ro", "busybox", "cat", "/data/x") == "kept"
    done = docker("run", "--rm", "-v", "keep:/data:ro", "busybox", "touch", "/data/y", code=1)
    assert "Read-only" in done.err


def test_a_new_volume_gets_the_images_files(docker: Docker) -> None:
    assert (
        docker.ok("run", "--rm", "-v", "www:/var/www", "busybox", "cat", "/var/www/index.html")
        == "hello from the image"
    )
    assert (
        docker.ok("run", "--rm", "-v", "www:/elsewhere", "busybox", "cat", "/elsewhere/index.html")
        == "hello from the image"
    )
    mount = "type=volume,src=none,dst=/var/www,volume-nocopy"
    assert docker.ok("run", "--rm", "--mount", mount, "busybox", "ls", "/var/www") == ""


def test_bind_mounts(docker: Docker, tmp_path: object) -> None:
    with open(f"{tmp_path}/file", "w") as file:
        file.write("of the host")
    assert docker.ok("run", "--rm", "-v", f"{tmp_path}:/host", "busybox", "cat", "/host/file") == "of the host"
    assert docker.ok("run", "--rm", "-v", f"{tmp_path}/file:/one", "busybox", "cat", "/one") == "of the host"
    docker("run", "--rm", "-v", f"{tmp_path}:/host:ro", "busybox", "touch", "/host/x", code=1)
    docker("run", "--rm", "--mount", f"type=bind,src={tmp_path},dst=/host", "busybox", "touch", "/host/made")
    done = docker("run", "--rm", "--mount", f"type=bind,src={tmp_path}/absent,dst=/host", "busybox", "true", code=125)
    assert "bind source path does not exist" in done.err


def test_volumes_from(docker: Docker) -> None:
    docker("create", "--name", "owner", "-v", "/shared", "busybox")
    docker("run", "--rm", "--volumes-from", "owner", "busybox", "touch", "/shared/x")
    assert docker.ok("run", "--rm", "--volumes-from", "owner:ro", "busybox", "ls", "/shared") == "x"


def test_env_file_and_label_file(docker: Docker, tmp_path: object) -> None:
    with open(f"{tmp_path}/env", "w") as file:
        file.write("# comment\nONE=1\nTWO=two words\n")
    assert (
        docker.ok("run", "--rm", "--env-file", f"{tmp_path}/env", "busybox", "sh", "-c", "echo $ONE $TWO")
        == "1 two words"
    )


def test_published_port(docker: Docker) -> None:
    docker("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", "busybox", "httpd", "-f", "-h", "/var/www")
    address = docker.ok("port", "web", "80")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    import urllib.request

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/index.html", timeout=2) as page:
                return b"hello from the image" in page.read()
        except OSError:
            return False

    docker.until(answers, "an answer")


def test_a_port_is_taken_once(docker: Docker) -> None:
    docker("run", "-d", "-p", "127.0.0.1:38471:80", "busybox", "sleep", "1000")
    done = docker("run", "-d", "-p", "127.0.0.1:38471:80", "busybox", "sleep", "1000", code=125)
    assert re.search(r"(?i)port is already allocated|address already in use", done.err)


def test_memory_limit_kills(docker: Docker) -> None:
    docker(
        "run",
        "--name",
        "greedy",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "x=a; while :; do x=$x$x; done",
        code=137,
    )
    assert docker.field("greedy", "{{.HostConfig.Memory}} {{.State.ExitCode}}") == f"{16 << 20} 137"


def test_restart_on_failure(docker: Docker) -> None:
    docker("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false")
    docker.until(lambda: docker.field("again", "{{.RestartCount}} {{.State.Status}}") == "2 exited", "two restarts")


def test_health(docker: Docker) -> None:
    docker(
        "run",
        "-d",
        "--name",
        "checked",
        "--health-cmd",
        "test -f /ok",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "1000",
    )
    docker.until(lambda: docker.field("checked", "{{.State.Health.Status}}") == "unhealthy", "illness")
    docker("exec", "checked", "touch", "/ok")
    docker.until(lambda: docker.field("checked", "{{.State.Health.Status}}") == "healthy", "health")
    assert "(healthy)" in docker.ok("ps", "--format", "{{.Status}}", "--filter", "health=healthy")


@pytest.mark.shared_kernel
def test_container_namespaces_are_shared(docker: Docker, sleeper: str) -> None:
    assert "sleep 1000" in docker.ok("run", "--rm", "--pid", f"container:{sleeper}", "busybox", "ps")
    own = docker.ok("exec", sleeper, "cat", "/sys/class/net/eth0/address")
    assert (
        docker.ok("run", "--rm", "--network", f"container:{sleeper}", "busybox", "cat", "/sys/class/net/eth0/address")
        == own
    )


def test_stop_takes_its_timeout(docker: Docker) -> None:
    docker("run", "-d", "--name", "stubborn", "busybox", "sleep", "1000")
    begun = time.monotonic()
    docker("stop", "-t", "1", "stubborn")
    assert 0.5 < time.monotonic() - begun < 8
    assert docker.field("stubborn", "{{.State.ExitCode}}") == "137"


def test_a_terminal(docker: Docker) -> None:
    """`docker run -t` needs no terminal of its own as long as its stdin is none."""
    done = docker("run", "--rm", "-t", "busybox", "sh", "-c", "test -t 1 && stty size && echo terminal")
    assert done.out.endswith("terminal\r\n")

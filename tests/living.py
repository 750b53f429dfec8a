"""A real daemon for tests: private folders, bridge, firewall table and cgroup, the real command line."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import foreign

ROOT = Path(__file__).parents[1]
CLI = [sys.executable, "-I", "-S", str(ROOT / "src" / "bastide" / "cli" / "__main__.py")]
APPLETS = (
    "sh cat echo ls true false sleep id env hostname ip ping wget nc mount umount ps kill touch rm mkdir rmdir cp mv "
    "ln dd head tail wc grep sed awk od sha256sum md5sum tr sort uname date stat chmod chown df free top tty stty test "
    "printf yes seq expr basename dirname readlink find xargs tar gzip nslookup httpd sync watch which vi"
).split()


def busybox_archive(
    target: Path, name: str = "busybox:latest", config: dict[str, Any] | None = None, architecture: str = "amd64"
) -> Path:
    """A docker-archive of one layer with a static busybox for an architecture; gives its path."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "var", "var/www", "home"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        program = foreign.busybox(architecture) if architecture in foreign.MACHINES else Path("/bin/busybox")
        busybox = program.read_bytes()
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = len(busybox), 0o755
        tar.addfile(info, io.BytesIO(busybox))
        for applet in APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        for path, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home:/bin/sh\n"),
            ("etc/group", "root:x:0:\nweb:x:1000:\nextra:x:2000:web\n"),
            ("var/www/index.html", "hello from the image\n"),
        ):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(text), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    raw = layer.getvalue()
    diff_id = "sha256:" + hashlib.sha256(raw).hexdigest()
    document = {
        "architecture": architecture,
        **({"variant": "v7"} if architecture == "arm" else {}),
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/"} | (config or {}),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test"}],
    }
    encoded = json.dumps(document).encode()
    config_name = hashlib.sha256(encoded).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as tar:
        for path, data in ((config_name, encoded), ("layer.tar", raw), ("manifest.json", manifest)):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target


class Daemon:
    """One daemon and its command line. `tag` keeps it apart from others: at most four letters or digits."""

    def __init__(self, tag: str, subnet: str, pools: str, **settings: str) -> None:
        self.base = Path(tempfile.mkdtemp(prefix=f"bst-{tag}-"))
        self.data, self.run_root = self.base / "data", self.base / "run"
        self.log = self.base / "daemon.log"
        self.config = self.base / "config.toml"
        self.tag = tag
        self.settings = {
            "data_root": str(self.data),
            "run_root": str(self.run_root),
            "bridge": f"bst{tag}",
            "bridge_subnet": subnet,
            "address_pools": pools,
            "firewall_table": f"bastide_{tag}",
            "cgroup_parent": f"bastide-{tag}",
            "pool_memory": "0",
            **settings,
        }
        self.path = os.environ["PATH"]
        self.process: subprocess.Popen[bytes] | None = None
        self.socket = self.run_root / "bastide.sock"

    @property
    def environment(self) -> dict[str, str]:
        """What the command line needs to reach this daemon."""
        own = {
            "PATH": os.environ["PATH"],
            "DOCKER_HOST": f"unix://{self.socket}",
            "HOME": str(self.base),
            "LANG": "C.UTF-8",
        }
        return own | {"BASTIDE_HOST": own["DOCKER_HOST"]}

    def start(self, timeout: float = 30) -> None:
        """Start it and wait until it answers."""
        assert self.process is None or self.process.poll() is not None
        flags = [word for name, value in self.settings.items() for word in ("--set", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bastide.daemon", "--config", str(self.config), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PATH": self.path},
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the daemon does not answer:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether the API accepts a ping."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(5)
            try:
                channel.connect(str(self.socket))
                channel.sendall(b"GET /_ping HTTP/1.1\r\nHost: bastide\r\nConnection: close\r\n\r\n")
                return b" 200 " in channel.recv(64)
            except OSError:
                return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon alone; containers go on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)
        self.process = None

    def cli(
        self, *args: str, stdin: bytes | None = None, timeout: float = 120, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run `bastide ARGS` and give what it printed."""
        done = subprocess.run(
            [*CLI, *args], input=stdin, capture_output=True, timeout=timeout, env=self.environment, check=False
        )
        result = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and result.returncode:
            raise AssertionError(f"bastide {' '.join(args)}: {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def ok(self, *args: str, stdin: bytes | None = None, timeout: float = 120) -> str:
        """Run a command that must succeed; gives its stdout without the last newline."""
        return self.cli(*args, stdin=stdin, timeout=timeout, check=True).stdout.rstrip("\n")

    def inspect(self, name: str) -> dict[str, Any]:
        """The container's inspect document."""
        found: dict[str, Any] = json.loads(self.ok("inspect", name))[0]
        return found

    def clear(self) -> None:
        """Remove every container."""
        if ids := self.ok("ps", "-aq").split():
            self.ok("rm", "-fv", *ids)

    def close(self) -> None:
        """Remove everything that this daemon made."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.clear()
        finally:
            self.stop()
            self._remove_network()
            for line in reversed(mounts_below(self.base)):
                subprocess.run(["umount", "-l", line], check=False)
            shutil.rmtree(self.base, ignore_errors=True)

    def _remove_network(self) -> None:
        for family in ("inet", "bridge", "ip", "ip6"):
            subprocess.run(
                ["nft", "delete", "table", family, self.settings["firewall_table"]], check=False, capture_output=True
            )
        for device in links():
            if device == self.settings["bridge"]:
                subprocess.run(["ip", "link", "delete", device], check=False, capture_output=True)


@contextlib.contextmanager
def serving(tag: str, subnet: str, pools: str, **settings: str) -> Iterator[Daemon]:
    """A daemon, for as long as the block lasts, that has the image `busybox`."""
    made = Daemon(tag, subnet, pools, **settings)
    try:
        made.start()
        made.ok("load", "--input", str(busybox_archive(made.base / "busybox.tar")))
        yield made
    finally:
        made.close()


def links() -> list[str]:
    """Names of all network devices of the host."""
    return sorted(entry.name for entry in Path("/sys/class/net").iterdir())


def mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(str(folder))]


def processes_with(words: Sequence[str]) -> list[str]:
    """Command lines of processes that hold one of `words`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if any(word in line for word in words):
                found.append(f"{entry.name} {line}")
    return found

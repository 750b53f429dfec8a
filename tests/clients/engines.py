"""What the clients are tried against: bastide, or with BASTIDE_TEST_PEER=dockerd a real dockerd.

The second proves that an expectation is Docker's and not ours; where Debian's own is older than API 1.45, a later
suite's is unpacked for it. BASTIDE_TEST_ISOLATION=vm puts every container behind that wall.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Protocol

from tests.clients.newer import dockerd_folders
from tests.living import Daemon, mounts_below

ISOLATION = os.environ.get("BASTIDE_TEST_ISOLATION", "")
PEER = os.environ.get("BASTIDE_TEST_PEER", "bastide")
_BRIDGE, _ADDRESS = "bstpeer0", "10.103.0.1/24"


class Engine(Protocol):
    """A running engine: `host` is what DOCKER_HOST says."""

    @property
    def host(self) -> str: ...

    def close(self) -> None: ...


class Bastide:
    """A bastide daemon of its own."""

    def __init__(self) -> None:
        # Two may run at a time, one for each wall.
        own = os.getpid() % 32 * 2 + bool(ISOLATION)
        wall = {"isolation": ISOLATION} if ISOLATION else {}
        self.daemon = Daemon(f"c{own}", f"10.{128 + own}.0.0/17", f"10.{128 + own}.128.0/17", **wall)
        self.daemon.start()

    @property
    def host(self) -> str:
        return f"unix://{self.daemon.socket}"

    def close(self) -> None:
        self.daemon.close()


class Dockerd:
    """A dockerd with everything private: folders, socket, bridge; it touches no firewall."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="bst-peer-"))
        self.socket = self.base / "docker.sock"
        for command in (
            ["ip", "link", "add", _BRIDGE, "type", "bridge"],
            ["ip", "address", "add", _ADDRESS, "dev", _BRIDGE],
            ["ip", "link", "set", _BRIDGE, "up"],
        ):
            subprocess.run(command, check=True)
        path = ":".join([*map(str, dockerd_folders()), os.environ["PATH"]])
        with (self.base / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.base}/data",
                    f"--exec-root={self.base}/exec",
                    f"--host=unix://{self.socket}",
                    f"--pidfile={self.base}/docker.pid",
                    f"--bridge={_BRIDGE}",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                    "--default-address-pool=base=10.107.0.0/16,size=24",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": path},
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, (self.base / "log").read_text()[-2000:]
            assert self.process.poll() is None, (self.base / "log").read_text()[-2000:]
            time.sleep(0.2)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as channel:
            try:
                channel.connect(str(self.socket))
                channel.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b" 200 " in channel.recv(64)
            except OSError:
                return False

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        subprocess.run(["ip", "link", "delete", _BRIDGE], check=False)
        for line in reversed(mounts_below(self.base)):
            subprocess.run(["umount", "-l", line], check=False)
        shutil.rmtree(self.base, ignore_errors=True)


def start() -> Engine:
    """The engine that the switch names."""
    return Dockerd() if PEER == "dockerd" else Bastide()

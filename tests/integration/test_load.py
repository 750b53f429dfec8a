"""Many containers and many clients at once: no error, no growth (`BASTIDE_TEST_LOAD=200,50,300` for the long form).

The switch is the number of containers, of clients and of seconds; with pytest's `-s` the figures are shown.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.raw import Api
from tests.living import Daemon, busybox_archive

CONTAINERS, CLIENTS, SECONDS = map(int, os.environ.get("BASTIDE_TEST_LOAD", "12,12,8").split(","))
GROWTH = 24 << 20
"""Bytes of private memory that the daemon may have more after the load than before it."""


@pytest.fixture(scope="module")
def busy() -> Iterator[Daemon]:
    """A daemon with containers that are checked and followed."""
    made = Daemon("ld", "10.124.0.0/16", "10.126.0.0/16")
    try:
        made.start()
        made.ok("load", "--input", str(busybox_archive(made.base / "busybox.tar")))
        api = Api(f"unix://{made.socket}")
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", "while :; do echo alive; sleep 1; done"],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": max(2, CONTAINERS // 7) * 1_000_000_000},
            "Labels": {"load": "yes"},
        }
        for number in range(CONTAINERS):
            api.ok("POST", f"/containers/create?name=load{number}", body)
            api.ok("POST", f"/containers/load{number}/start")
        yield made
    finally:
        made.close()


def memory(pid: int) -> int:
    """Private bytes of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no Private_Dirty in smaps_rollup")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Follower(threading.Thread):
    """Follows one container's log until it is told to stop."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        head = f"GET /containers/{name}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        self._socket.sendall(head.encode())
        self.received = 0

    def run(self) -> None:
        while data := self._socket.recv(65536):
            self.received += data.count(b"alive")

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self._socket.close()


class Client(threading.Thread):
    """Makes calls until a moment; every one must succeed."""

    def __init__(self, api: Api, number: int, until: float) -> None:
        super().__init__(daemon=True)
        self._api, self._number, self._until = api, number, until
        self._random = random.Random(number)
        self.calls = 0
        self.errors: list[str] = []

    def run(self) -> None:
        while time.monotonic() < self._until and not self.errors:
            try:
                self._turn()
            except (AssertionError, OSError, ValueError) as error:
                self.errors.append(repr(error))

    def _turn(self) -> None:
        name = f"load{self._random.randrange(CONTAINERS)}"
        choice = self._random.randrange(10)
        if choice < 3:
            assert self._api.ok("GET", "/containers/json")
        elif choice < 6:
            assert self._api.ok("GET", f"/containers/{name}/json")["State"]["Running"]
        elif choice == 6:
            self._api.ok("GET", f"/containers/{name}/stats?stream=0&one-shot=1")
        elif choice == 7:
            assert b"alive" in self._api("GET", f"/containers/{name}/logs?stdout=1&tail=5").body
        elif choice == 8:
            made = self._api.ok("POST", f"/containers/{name}/exec", {"Cmd": ["echo", "hi"], "AttachStdout": True})
            assert b"hi" in self._api("POST", f"/exec/{made['Id']}/start", {"Detach": False}).body
        else:
            volume = f"v{self._number}-{self.calls}"
            self._api.ok("POST", "/volumes/create", {"Name": volume})
            self._api.ok("DELETE", f"/volumes/{volume}")
        self.calls += 1


@pytest.mark.timeout(900)
def test_many_clients_at_once(busy: Daemon) -> None:
    assert busy.process is not None
    pid, api = busy.process.pid, Api(f"unix://{busy.socket}")
    time.sleep(3)
    followers = [Follower(api.path, f"load{number}") for number in range(CONTAINERS)]
    for follower in followers:
        follower.start()
    _calls(api, 2.0)
    open_before, memory_before = descriptors(pid), memory(pid)
    clients = _calls(api, SECONDS)
    assert [error for client in clients for error in client.errors] == []
    assert all(client.calls for client in clients)
    time.sleep(1)
    sys.stdout.write(
        f"{sum(client.calls for client in clients)} calls by {CLIENTS} clients in {SECONDS} s among {CONTAINERS} "
        f"containers: memory {memory_before >> 10} to {memory(pid) >> 10} KiB, "
        f"descriptors {open_before} to {descriptors(pid)}\n"
    )
    assert descriptors(pid) <= open_before + 10
    assert memory(pid) <= memory_before + GROWTH
    for follower in followers:
        follower.stop()
    assert all(follower.received for follower in followers)
    assert "Traceback" not in busy.log.read_text()


def _calls(api: Api, seconds: float) -> list[Client]:
    clients = [Client(api, number, time.monotonic() + seconds) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(seconds + 60)
    return clients


def test_the_list_stays_quick(busy: Daemon) -> None:
    api = Api(f"unix://{busy.socket}")
    took = []
    for _ in range(20):
        begun = time.monotonic()
        assert len(api.ok("GET", "/containers/json")) == CONTAINERS
        took.append(time.monotonic() - begun)
    assert sorted(took)[10] < 0.01 + 0.0004 * CONTAINERS

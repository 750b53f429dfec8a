"""The daemon reads its settings again on SIGHUP."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest
from tests.living import Daemon, busybox_archive


@pytest.fixture
def own() -> Iterator[Daemon]:
    """A daemon whose settings may change."""
    made = Daemon("rel", "10.77.0.0/17", "10.77.128.0/17")
    # A flag would count for more than the file does.
    del made.settings["pool_memory"]
    made.config.write_text("pool_memory = 0\n")
    made.start()
    yield made
    made.close()


def hang_up(daemon: Daemon, said: str) -> None:
    """Send the signal and wait for what the daemon logs of it."""
    before = daemon.log.stat().st_size
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while said not in daemon.log.read_text()[before:]:
        assert time.monotonic() < deadline, daemon.log.read_text()
        time.sleep(0.02)


def reloads(daemon: Daemon) -> list[dict[str, str]]:
    """The attributes of each `reload` so far."""
    words = ("events", "--since", "5m", "--until", str(int(time.time()) + 1), "--filter", "event=reload")
    lines = daemon.ok(*words, "--format", "{{json .}}").splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["Type"] for event in events} <= {"daemon"}
    return [event["Actor"]["Attributes"] for event in events]


def test_what_can_change_while_it_runs(own: Daemon) -> None:
    assert "Off: pool_memory is 0" in own.ok("system", "pool")
    own.config.write_text(f"debug = true\npool_memory = {64 << 20}\nlog_max_size = 4096\n")
    hang_up(own, "settings read again\n")
    assert own.ok("info", "--format", "{{.Debug}}") == "true"
    assert "Off" not in own.ok("system", "pool")
    (attributes,) = reloads(own)
    assert attributes.pop("name")
    assert attributes == {"debug": "true", "pool_memory": str(64 << 20), "log_max_size": "4096"}


def test_what_cannot(own: Daemon) -> None:
    own.config.write_text('pool_memory = 0\nbridge_subnet6 = "fd00:77::/64"\nvm_memory = 134217728\n')
    hang_up(own, "settings read again; restart the daemon for bridge_subnet6, vm_memory\n")
    assert own.answers()


def test_settings_that_are_none(own: Daemon) -> None:
    own.config.write_text("debug = true\npool_memory = [\n")
    hang_up(own, f"the settings stay as they are: settings file {own.config}: ")
    assert own.ok("info", "--format", "{{.Debug}}") == "false"
    assert reloads(own) == []


def test_logs_are_cut_by_the_new_size(own: Daemon) -> None:
    own.ok("load", "-i", str(busybox_archive(own.base / "busybox.tar")))
    own.ok("run", "-d", "--name", "wordy", "busybox", "sh", "-c", "while sleep 0.02; do seq 1 40; done")
    folder = own.data / "containers" / own.inspect("wordy")["Id"]
    assert not list(folder.glob("*.log.1"))
    own.config.write_text("pool_memory = 0\nlog_max_size = 4096\n")
    hang_up(own, "settings read again\n")
    deadline = time.monotonic() + 10
    while not list(folder.glob("*.log.1")):
        assert time.monotonic() < deadline
        time.sleep(0.05)

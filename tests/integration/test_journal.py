"""The log driver journald: what a container says reaches the host's journal, and `logs` all the same."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.living import Daemon

JOURNAL = Path("/run/systemd/journal/socket")


@pytest.fixture
def journal() -> Iterator[Callable[[str], str]]:
    """Reads what the journal was told by a container of a name: the host's own journal, or its socket's stand-in."""
    if JOURNAL.exists():
        yield (
            lambda name: (
                subprocess.run(
                    ["journalctl", "--output=export", f"CONTAINER_NAME={name}"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
        )
        return
    made = [folder for folder in (JOURNAL.parent, JOURNAL.parents[1]) if not folder.exists()]
    JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(JOURNAL))
        listener.settimeout(20)

        def read(name: str) -> str:
            while f"CONTAINER_NAME={name}" not in (entry := listener.recv(65536).decode(errors="replace")):
                pass
            return entry

        yield read
    JOURNAL.unlink()
    for folder in made:
        folder.rmdir()


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_a_log_in_the_journal(daemon: Daemon, journal: Callable[[str], str], isolation: str) -> None:
    name = f"heard-{isolation}"
    flags = ("--isolation", isolation, "--log-driver", "journald", "--name", name)
    try:
        daemon.ok("run", *flags, "busybox", "echo", "for the journal")
        assert "for the journal" in journal(name)
        assert daemon.ok("logs", name) == "for the journal"
    finally:
        daemon.cli("rm", "-f", name)

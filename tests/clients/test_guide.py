"""Every command of docs/guide.md does what the guide says, in the guide's order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from tests.living import CLI, Daemon

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"
DEFAULT_SOCKET = "unix:///run/bastide/bastide.sock"


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_guide(daemon: Daemon, tmp_path: Path) -> None:
    daemon.ok("tag", "busybox", "debian:12")
    program = tmp_path / "bastide"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(CLI)} "$@"\n')
    program.chmod(0o755)
    environment = os.environ | daemon.environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    try:
        for line in commands():
            here = line.replace(DEFAULT_SOCKET, f"unix://{daemon.socket}").replace("/tmp/mine", str(tmp_path / "mine"))
            done = subprocess.run(
                ["sh", "-c", here],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    finally:
        daemon.clear()
        daemon.ok("rmi", "debian:12")

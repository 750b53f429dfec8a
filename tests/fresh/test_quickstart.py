"""The README's commands in fresh roots of the supported distributions; minutes each, with packages from the network."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AUTHORITIES = os.environ.get("SSL_CERT_FILE", "")
"""Where this computer's own certificate authorities are, if it needs any."""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_quickstart_twice(suite: str) -> None:
    trust = ["--ca", AUTHORITIES] if AUTHORITIES else []
    commands = ["scripts/quickstart", "echo AGAIN >&2; scripts/quickstart", "bastide ps -a --format json"]
    argv = [str(ROOT / "scripts" / "fresh-root"), *trust, suite, *commands]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("container") >= 2
    first, again = done.stderr.split("AGAIN\n", 1)
    assert "packages " in first
    assert "packages " not in again
    assert "image debian:12" not in again

"""Fixtures that start real parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import Daemon, busybox_archive


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """A running daemon with the image `busybox` in it, shared by a whole run."""
    assert os.geteuid() == 0, "integration tests start a real daemon: run them as root"
    made = Daemon("it", "10.99.0.0/16", "10.101.0.0/16")
    try:
        made.start()
        made.ok("load", "--input", str(busybox_archive(made.base / "busybox.tar")))
        yield made
    finally:
        made.close()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A docker-archive of a small image."""
    return busybox_archive(tmp_path / "busybox.tar")

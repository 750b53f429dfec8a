"""A full disk: one clear line, nothing half-made, and everything works again when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import Daemon, busybox_archive, mounts_below

ROOM = 16 << 20
"""Bytes of the file system that holds the data root."""


@pytest.fixture
def narrow() -> Iterator[Daemon]:
    """A daemon whose data root is a small file system."""
    made = Daemon("fu", "10.95.0.0/16", "10.105.0.0/16", prepared_namespaces="1")
    made.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", made.data], check=True)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_loading_more_than_there_is_room_for(narrow: Daemon, tmp_path: Path) -> None:
    archive = busybox_archive(tmp_path / "small.tar")
    filler = narrow.data / "filler"
    filler.write_bytes(b"x" * (ROOM - (3 << 20)))
    done = narrow.cli("load", "--input", str(archive))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr or "no space left on device" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert narrow.ok("images", "-q") == ""
    filler.unlink()
    narrow.ok("load", "--input", str(archive))
    assert narrow.ok("run", "--rm", "busybox", "echo", "whole") == "whole"


def test_a_container_that_fills_the_disk(narrow: Daemon, tmp_path: Path) -> None:
    narrow.ok("load", "--input", str(busybox_archive(tmp_path / "small.tar")))
    done = narrow.cli("run", "--name", "greedy", "busybox", "dd", "if=/dev/zero", "of=/root/big", "bs=1M")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert narrow.inspect("greedy")["State"]["ExitCode"] == 1
    narrow.ok("rm", "greedy")
    assert narrow.ok("run", "--rm", "busybox", "echo", "again") == "again"
    assert not [place for place in mounts_below(narrow.base) if "/roots/" in place and place.count("/") > 5]

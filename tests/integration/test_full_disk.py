"""A full disk: one clear line, nothing half-made, and everything works again when there is room."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image_schemas import check_archive
from tests.living import Daemon, busybox_archive, mounts_below
from tests.registry import Registry

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
    # Its files are deleted in the background.
    deadline = time.monotonic() + 30
    while list((narrow.data / "overlay" / "trash").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert narrow.ok("run", "--rm", "busybox", "echo", "again") == "again"
    assert not [place for place in mounts_below(narrow.base) if "/roots/" in place and place.count("/") > 5]


@pytest.fixture
def full(narrow: Daemon, tmp_path: Path) -> Daemon:
    """A daemon with an image and a container of it that wrote 2 MB, and less room than that."""
    narrow.ok("load", "--input", str(busybox_archive(tmp_path / "small.tar")))
    words = "dd if=/dev/urandom of=/big bs=1M count=2".split()
    narrow.ok("run", "--name", "wrote", "--network=none", "busybox", *words)
    fill(narrow, 1 << 20)
    return narrow


def fill(narrow: Daemon, left: int) -> None:
    """Leave some bytes of room."""
    free = os.statvfs(narrow.data)
    (narrow.data / "filler").write_bytes(b"x" * (free.f_bavail * free.f_bsize - left))


def refused(narrow: Daemon, *command: str) -> None:
    """The command ends with one line about the disk."""
    done = narrow.cli(*command)
    assert done.returncode == 1, done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "no space left on device" in lines[0].lower()


def whole(narrow: Daemon) -> None:
    """Every blob that is in place is whole, nothing is staged, and what was there before works."""
    for blob in (narrow.data / "content" / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert not list((narrow.data / "overlay" / "staging").iterdir())
    assert not list((narrow.data / "content" / "ingest").glob("spool-*"))
    assert narrow.ok("images", "--format", "{{.Repository}}") == "busybox"


def test_a_commit_that_does_not_fit(full: Daemon) -> None:
    refused(full, "commit", "wrote", "made:1")
    whole(full)
    (full.data / "filler").unlink()
    full.ok("commit", "wrote", "made:1")
    assert full.ok("run", "--rm", "--network=none", "made:1", "wc", "-c", "/big").split() == ["2097152", "/big"]


@pytest.mark.parametrize("step", ["COPY big /big", "RUN dd if=/dev/urandom of=/big bs=1M count=2"])
def test_a_build_that_does_not_fit(full: Daemon, tmp_path: Path, step: str) -> None:
    place = tmp_path / "context"
    place.mkdir()
    (place / "big").write_bytes(os.urandom(2 << 20))
    (place / "Dockerfile").write_text(f"FROM busybox\n{step}\n")
    command = ["build", "--network=none", "-t", "made:1", str(place)]
    done = full.cli(*command)
    assert done.returncode == 1
    assert "no space left on device" in (done.stdout + done.stderr).lower()
    whole(full)
    assert full.ok("ps", "-aq") == full.ok("ps", "-aq", "--filter", "name=wrote")
    (full.data / "filler").unlink()
    full.ok(*command)
    assert full.ok("run", "--rm", "--network=none", "made:1", "wc", "-c", "/big").split() == ["2097152", "/big"]


def test_a_pull_that_does_not_fit(narrow: Daemon, tmp_path: Path) -> None:
    registry = Registry()
    try:
        reference = registry.fill(busybox_archive(tmp_path / "small.tar"), "small:1")
        fill(narrow, 1 << 20)
        refused(narrow, "pull", reference)
        assert narrow.ok("images", "-q") == ""
        (narrow.data / "filler").unlink()
        narrow.ok("pull", "-q", reference)
        assert narrow.ok("run", "--rm", "--network=none", reference, "echo", "whole") == "whole"
    finally:
        registry.close()


def test_a_save_that_does_not_fit(full: Daemon) -> None:
    """What a client writes is on a full disk of its own; the daemon needs no room to save."""
    out = full.base / "small"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={1 << 20}", "tmpfs", out], check=True)
    target = out / "saved.tar"
    target.write_bytes(b"what was there before")
    refused(full, "save", "-o", str(target), "busybox")
    assert [path.name for path in out.iterdir()] == ["saved.tar"]
    assert target.read_bytes() == b"what was there before"
    subprocess.run(["umount", out], check=True)
    full.ok("save", "-o", str(target), "busybox")
    check_archive(target.read_bytes())

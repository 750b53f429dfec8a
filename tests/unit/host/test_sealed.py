"""Sealed copies of programs."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from bastide.host.sealed import Sealed


@pytest.fixture
def program(tmp_path: Path) -> Path:
    made = tmp_path / "program"
    made.write_bytes(Path("/bin/true").read_bytes())
    made.chmod(0o755)
    return made


def test_the_copy_runs_and_cannot_be_written_to(program: Path) -> None:
    sealed = Sealed()
    path = sealed.copy(program)
    assert path.startswith(f"/proc/{os.getpid()}/fd/")
    assert subprocess.run([path], check=False).returncode == 0
    with pytest.raises(PermissionError):
        Path(path).write_bytes(b"#!/bin/sh")
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    with Path(path).open("rb") as copy:
        assert fcntl.fcntl(copy, fcntl.F_GET_SEALS) == seals
    assert not os.get_inheritable(int(path.rpartition("/")[2]))


def test_a_new_program_is_copied_to_the_same_place(program: Path) -> None:
    sealed = Sealed()
    path = sealed.copy(program)
    fresh = program.with_name("fresh")
    fresh.write_bytes(Path("/bin/false").read_bytes())
    fresh.rename(program)
    assert sealed.copy(program) == path
    assert subprocess.run([path], check=False).returncode == 1


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    assert Sealed().copy(tmp_path / "missing") == str(tmp_path / "missing")


def test_the_copy_goes_with_its_holder(program: Path) -> None:
    sealed = Sealed()
    path = sealed.copy(program)
    del sealed
    assert not Path(path).exists()

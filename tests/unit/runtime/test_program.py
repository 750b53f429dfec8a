"""Where the runtime's program is found, and when."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bastide.model.config import Settings
from bastide.runtime.oci import Crun


def test_a_program_that_is_installed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found without a new daemon; never in the folder where the daemon happens to be."""
    here, installed = tmp_path / "here", tmp_path / "bin"
    here.mkdir()
    installed.mkdir()
    shutil.copy("/bin/false", here / "crun")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", str(installed))
    runtime = Crun(Settings(data_root=tmp_path, run_root=tmp_path))
    assert runtime._program == "crun"
    shutil.copy("/bin/true", installed / "crun")
    assert Path(runtime._program).read_bytes() == Path("/bin/true").read_bytes()

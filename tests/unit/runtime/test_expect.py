"""Hints are only hints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bastide.host import cgroups
from bastide.model.config import Settings
from bastide.runtime.oci import Crun


def test_hints_close_together_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(cgroups, "expect_moves", lambda: calls.append(1))
    now = 100.0
    monkeypatch.setattr(cgroups, "time", SimpleNamespace(monotonic=lambda: now))
    runtime = Crun(Settings(data_root=tmp_path, run_root=tmp_path))
    for _ in range(5):
        runtime.expect()
    now += 1.0
    runtime.expect()
    runtime._moves.close()
    assert calls == [1, 1]


def test_a_move_to_where_it_is_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    procs = tmp_path / "own" / "cgroup.procs"
    procs.write_text("")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "unified", lambda: True)
    monkeypatch.setattr(cgroups, "_own_group", lambda: ("", "own"))
    cgroups.expect_moves()
    assert procs.read_text() == "0"
    procs.unlink()
    procs.mkdir()
    cgroups.expect_moves()

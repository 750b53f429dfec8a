"""A short run of the fuzzer over everything that reads untrusted bytes; `python -m tests.fuzz` runs for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RUNS = 3000


@pytest.mark.parametrize("target", ["tar", "dockerfile", "reference", "manifest"])
def test_nothing_is_found(target: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, f"-runs={RUNS}", "-seed=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert not list(tmp_path.iterdir())

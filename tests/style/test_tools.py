"""The linters are tests too: ruff, mypy strict and the layers of import-linter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON_FOLDERS = [name for name in ("src", "tests", "bench") if (ROOT / name).is_dir()]


def is_shell(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".bash" or b"bash" in path.read_bytes().partition(b"\n")[0])


CHECKS = {
    "ruff check": ["-m", "ruff", "check", "--no-cache", *PYTHON_FOLDERS],
    "ruff format": ["-m", "ruff", "format", "--no-cache", "--check", *PYTHON_FOLDERS],
    "mypy strict": ["-m", "mypy"],
    "mypy strict, bench": ["-m", "mypy", "--explicit-package-bases", "-p", "bench"],
    "layers": [
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
        "--no-cache",
        "--no-logo",
    ],
}


SHELL_SCRIPTS = [".ci/run", *sorted(f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir() if is_shell(path))]


@pytest.mark.parametrize("check", CHECKS)
def test_tool_finds_nothing(check: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MYPY_CACHE_DIR": mypy_cache(tmp_path)}
    done = subprocess.run(
        [sys.executable, *CHECKS[check]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{check}:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_shell_script_is_sound(script: str) -> None:
    done = subprocess.run(["shellcheck", "-x", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def mypy_cache(scratch: Path) -> str:
    """Where mypy keeps what it knows: the caller's folder when one is set, else nothing is left behind."""
    return os.environ.get("MYPY_CACHE_DIR", str(scratch / "mypy"))

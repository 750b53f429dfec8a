"""The clients' own cases once more with every container in a VM: those that show the most in the least time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = (
    "test_cli_at_rest.py::test_into_one_that_never_ran",
    "test_cli_containers.py",
    "test_cli_events.py::test_want_of_memory_of_another_process",
    "test_cli_networks.py",
    "test_cli_run.py::test_memory_limit_kills",
    "test_cli_terminal.py",
    "test_docker_py.py",
    "test_testcontainers.py",
    "test_compose.py::test_verbs",
    "test_compose.py::test_one_off",
    "test_devcontainers.py",
)


@pytest.mark.beyond
@pytest.mark.shared_kernel
@pytest.mark.timeout(1200)
def test_the_same_in_a_vm() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / case) for case in CASES)]
    done = subprocess.run(
        command, env={**os.environ, "BASTIDE_TEST_ISOLATION": "vm"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:]

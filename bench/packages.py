"""The packages that the bench needs: named in packaging/packages.txt, installed by scripts/setup.bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.measure import BenchError

SETUP = Path(__file__).resolve().parents[1] / "scripts" / "setup.bash"


def install() -> None:
    """Install the peers that are missing; says so on stderr. Raises BenchError."""
    command = f'source "{SETUP}"; PROGRAM=bench; open_log; install_packages run bench'
    if subprocess.run(["bash", "-c", command], check=False).returncode != 0:
        raise BenchError("the peers could not be installed")

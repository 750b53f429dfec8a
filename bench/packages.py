"""The packages that the bench needs: named in packaging/packages.txt, installed by scripts/setup.bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.measure import BenchError

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
GUEST = Path("/var/cache/bastide/guest")
"""What the VMs that are measured are made of; the tests have theirs there too."""


def install() -> None:
    """Install the peers and the guest that are missing; says so on stderr. Raises BenchError."""
    command = (
        f'source "{SCRIPTS}/setup.bash"; PROGRAM=bench; open_log; install_packages run guest foreign bench; '
        f'"$SYSTEM_PYTHON" "{SCRIPTS}/guest" --target "{GUEST}" --architecture arm64 >&2'
    )
    if subprocess.run(["bash", "-c", command], check=False).returncode != 0:
        raise BenchError("the peers or the guest could not be installed")

"""Private places for contract tests: roots, a cgroup, nothing of the host's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bastide.host import cgroups, mounts
from bastide.model.config import Settings

TEMPLATES = Path("/var/tmp/bastide-test-templates")
GUEST = Path(os.environ.get("BASTIDE_GUEST_ROOT", Settings().guest_root))
"""Where scripts/test, or an installation, put what VMs are made of."""


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Settings whose folders are gone after the test, with whatever was mounted below them."""
    assert os.geteuid() == 0, "contract tests make mounts and containers: run them as root"
    base = Path(tempfile.mkdtemp(prefix="bastide-contract-"))
    made = Settings(
        data_root=base / "data",
        run_root=base / "run",
        cgroup_parent=f"bastide-contract-{os.getpid()}",
        guest_root=GUEST,
        pool_memory=0,
    )
    for folder in (made.data_root, made.run_root):
        folder.mkdir(mode=0o711)
    # A VM's template takes seconds to boot: all tests share those of one folder.
    TEMPLATES.mkdir(exist_ok=True, mode=0o700)
    (made.data_root / "templates").symlink_to(TEMPLATES)
    yield made
    for entry in reversed(mounts.mounts()):
        if Path(entry.target).is_relative_to(base):
            mounts.unmount(entry.target)
    shutil.rmtree(base, ignore_errors=True)
    with contextlib.suppress(OSError):
        cgroups.Group(made.cgroup_parent).remove()

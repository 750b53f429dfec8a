"""What the monitor lets QEMU see of a device: a program in QEMU's place tries to open it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.contract.conftest import GUEST

from bastide.hypervisor.plan import Plan

UID = 2_000_000_778
ZERO = os.makedev(1, 5)
OPEN = "import os, sys; os.write(os.open(sys.argv[1], os.O_RDWR), b'x'); print('opened', os.stat(sys.argv[1]).st_uid)"


@pytest.fixture
def base() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="bastide-view-"))
    (path / "dev").mkdir()
    (path / "bundle").mkdir()
    yield path
    shutil.rmtree(path)


def monitor(bundle: Path, pid_file: Path, program: Sequence[str], *seen: Path) -> list[str]:
    """The monitor's command line, for a program in QEMU's place that sees these paths beside its own."""
    plan = Plan(UID)
    plan.vendor(Path("agent.sock"))
    plan.agent()
    plan.stdio()
    for path in (Path("/usr"), Path("/lib"), Path("/lib64"), *seen):
        plan.view(path)
    plan.arguments(*program)
    (bundle / "plan").write_text(plan.text())
    return [str(GUEST / "vmm"), "create", "--bundle", str(bundle), "--pid-file", str(pid_file), "x"]


def last_words(bundle: Path, device: Path, *seen: Path) -> str:
    """What the program says of a device, which the monitor tells when it has ended."""
    command = monitor(bundle, bundle / "pid", ["/usr/bin/python3", "-c", OPEN, str(device)], *seen)
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, stdin=quiet, stdout=quiet, stderr=quiet, timeout=20)
    deadline = time.monotonic() + 20
    while not (bundle / "fault").exists() or not (bundle / "fault").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return (bundle / "fault").read_text().strip()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_device_is_its_own_whoever_may_open_it_on_the_host(base: Path, mode: int) -> None:
    device = base / "dev" / "accelerator"
    os.mknod(device, stat.S_IFCHR | mode, ZERO)
    assert last_words(base / "bundle", device, device) == f"opened {UID}"
    info = device.stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (0, mode & ~0o022)


def test_no_vm_is_left_whose_pid_cannot_be_written(base: Path) -> None:
    """As when the bundle is removed while a daemon that was killed was about to start it."""
    bundle = base / "bundle"
    command = monitor(bundle, base / "gone" / "pid", ["/usr/bin/sleep", "1000"])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
    left = subprocess.run(["pgrep", "-f", str(bundle)], capture_output=True, text=True, check=False)
    assert not left.stdout


def test_a_device_that_it_is_not_shown_is_not_there(base: Path) -> None:
    device = base / "dev" / "accelerator"
    os.mknod(device, stat.S_IFCHR | 0o666, ZERO)
    assert "No such file" in last_words(base / "bundle", device)

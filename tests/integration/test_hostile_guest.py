"""A VM whose guest agent turns on its host, with the real daemon, monitor and QEMU: whatever it sends or leaves out,
the daemon keeps its size and its descriptors, the others notice nothing, and the VM can be killed and removed.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.living import CLI, ROOT, Daemon, busybox_archive, links

from bastide.model.config import Settings

pytestmark = pytest.mark.timeout(240)
GUEST = Path(os.environ.get("BASTIDE_GUEST_ROOT", Settings().guest_root))
WRAPPED = ("process_exec", "system_stats", "shares_boot")
GROWTH = 24 << 20
"""Bytes that the daemon may be larger afterwards: what its allocator keeps, far below what an attack sends."""


def guest_script() -> Any:
    """`scripts/guest` as a module."""
    loader = importlib.machinery.SourceFileLoader("guest_script", str(ROOT / "scripts" / "guest"))
    spec = importlib.util.spec_from_loader("guest_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look up the names of their module.
    sys.modules[spec.name] = module
    loader.exec_module(module)
    return module


def hostile_guest(target: Path) -> None:
    """What VMs are made of, with the hostile agent: a second archive behind the first replaces its /init."""
    shutil.copytree(GUEST, target, ignore=shutil.ignore_patterns("arm", "arm64"))
    script = guest_script()
    agent = target / "agent"
    sources = [*sorted((ROOT / "guest").glob("*.c")), ROOT / "tests" / "hostile" / "guest.c"]
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    command = [*script.NATIVE.compiler(), "-I", ROOT / "guest", *wraps, "-o", agent, *sources]
    subprocess.run(command, check=True)
    archive = script.cpio_entry("init", 0o100755, agent.read_bytes(), 1) + script.cpio_entry("TRAILER!!!", 0, b"", 0)
    with (target / "initramfs").open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"\0" * (-file.tell() % 512) + archive)
    target.chmod(0o755)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon all of whose guests are hostile, once they are told to be; one VM and one container stay honest."""
    target = tmp_path_factory.mktemp("guest") / "guest"
    hostile_guest(target)
    made = Daemon("hg", "10.92.0.0/16", "10.102.0.0/16", guest_root=str(target), prepared_namespaces="1")
    try:
        made.start()
        made.ok("load", "--input", str(busybox_archive(made.base / "busybox.tar")))
        made.ok("run", "-d", "--isolation", "vm", "--name", "neighbour", "busybox", "sleep", "100000")
        made.ok("run", "-d", "--name", "box", "busybox", "sleep", "100000")
        # What a daemon opens once, at a first use, is open before anything is measured.
        for _ in range(2):
            said = made.ok(
                "run", "--rm", "--isolation", "vm", "--hostname", "honest", "busybox", "cat", "/etc/hostname"
            )
            assert said == "honest"
        for name in ("neighbour", "box"):
            assert made.ok("exec", name, "echo", "well") == "well"
        made.ok("system", "prewarm", "busybox")
        yield made
    finally:
        made.close()


def resident(daemon: Daemon) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmRSS:", 1)[1].split()[0]) * 1024


def descriptors(daemon: Daemon) -> int:
    assert daemon.process is not None
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


@contextlib.contextmanager
def turning(daemon: Daemon, *flags: str) -> Iterator[None]:
    """A VM `evil`. Afterwards: nobody else noticed, it can be removed, nothing is left, the daemon is as it was."""
    memory, held = resident(daemon), descriptors(daemon)
    vms, uids, devices = bundles(daemon), len(list((daemon.run_root / "qemu" / "uids").iterdir())), len(links())
    try:
        daemon.ok("run", "-d", "--isolation", "vm", "--name", "evil", *flags, "busybox", "sleep", "100000")
        yield
        undisturbed(daemon)
    finally:
        daemon.ok("rm", "-fv", "evil")
    until(lambda: descriptors(daemon) <= held, 15)
    until(lambda: len(links()) <= devices, 15)
    assert resident(daemon) - memory < GROWTH
    assert bundles(daemon) == vms
    assert len(list((daemon.run_root / "qemu" / "uids").iterdir())) == uids
    assert "Traceback" not in daemon.log.read_text()


def bundles(daemon: Daemon) -> set[str]:
    return {entry.name for entry in (daemon.run_root / "qemu" / "bundles").iterdir()}


def undisturbed(daemon: Daemon) -> None:
    """The others are served, whatever a guest is doing."""
    for name in ("neighbour", "box"):
        assert daemon.ok("exec", name, "echo", "well", timeout=10) == "well"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """One line of an error; gives it."""
    assert done.returncode
    assert done.stderr.count("\n") == 1
    assert "internal error" not in done.stderr
    return done.stderr


def attack(daemon: Daemon, kind: str) -> subprocess.Popen[str]:
    command = [*CLI, "exec", "evil", "attack", kind]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **streams, env=daemon.environment, text=True)  # type: ignore[call-overload,no-any-return]


FRAMES = ["huge", "noise", "silence"]
"""What is sent on the agent's channel; the others take some ten seconds each and are for BASTIDE_TEST_LONG."""
if os.environ.get("BASTIDE_TEST_LONG"):
    FRAMES += ["endless", "chatter", "flood", "half"]


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_on_the_agents_channel(hostile: Daemon, kind: str) -> None:
    """Too long, without end, of no kind or stream that exists, beyond the window, in halves, none at all."""
    with turning(hostile):
        with attack(hostile, kind) as attacking:
            with contextlib.suppress(subprocess.TimeoutExpired):
                attacking.wait(3)
            undisturbed(hostile)
            hostile.ok("kill", "evil", timeout=30)
            _, said = attacking.communicate(timeout=30)
        assert attacking.returncode
        assert said.count("\n") <= 1
        until(lambda: not hostile.inspect("evil")["State"]["Running"])
        assert hostile.inspect("evil")["State"]["ExitCode"] == 137


def test_an_end_that_is_cut_short(hostile: Daemon) -> None:
    """The channel is taken up again: what was asked fails, what is asked next does not."""
    with turning(hostile):
        with attack(hostile, "short") as attacking:
            attacking.communicate(timeout=30)
        assert attacking.returncode == 137
        assert hostile.ok("exec", "evil", "echo", "honest") == "honest"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stdio-huge", "the guest agent sent a frame that is too long"),
        ("stdio-noise", "the guest agent sent a frame that is too long"),
        ("stdio-chatter", ""),
        ("console", "Kernel panic ?[2J?]0;owned??[31mred ?? not a line"),
    ],
)
def test_the_main_processs_channel_and_the_console(hostile: Daemon, kind: str, said: str) -> None:
    """The monitor ends the VM with one printable line, or passes over what makes no sense."""
    with turning(hostile):
        with attack(hostile, kind) as attacking:
            attacking.communicate(timeout=60)
        if said:
            until(lambda: not hostile.inspect("evil")["State"]["Running"])
            shown = hostile.cli("logs", "evil").stderr
            assert shown.splitlines()[-1] == f"bastide: the virtual machine ended before its process: {said}"


def test_output_without_end_is_rotated_away(hostile: Daemon) -> None:
    with turning(hostile, "--log-opt", "max-size=1m", "--log-opt", "max-file=2"):
        with attack(hostile, "stdio-flood") as attacking:
            attacking.communicate(timeout=120)
        assert not attacking.returncode
        log = Path(hostile.inspect("evil")["LogPath"])
        # Sizes are looked at a moment later.
        until(lambda: log.exists() and log.stat().st_size <= 1 << 20)
        assert len(list(log.parent.glob(f"{log.name}*"))) == 2


def test_noise_for_the_file_server(hostile: Daemon) -> None:
    """The server of the VM's volumes, and with it the VM, ends; what is in the volume stays."""
    with turning(hostile, "-v", "kept:/kept"):
        hostile.ok("exec", "evil", "sh", "-c", "echo kept > /kept/file; sync")
        with attack(hostile, "shares") as attacking:
            attacking.communicate(timeout=60)
        hostile.ok("kill", "evil", timeout=30)
        assert hostile.ok("run", "--rm", "-v", "kept:/kept", "busybox", "cat", "/kept/file") == "kept"


@pytest.mark.parametrize("kind", ["climb", "link"])
def test_paths_on_copy_out(hostile: Daemon, kind: str, tmp_path: Path) -> None:
    """An archive that climbs out of its folder, or leads out by a link of its own: nothing is written outside."""
    (escaped := Path("/tmp/bastide-escaped")).unlink(missing_ok=True)
    with turning(hostile):
        with attack(hostile, kind) as attacking:
            attacking.communicate(timeout=30)
        done = hostile.cli("cp", "evil:/data", str(tmp_path))
        refused(done)
        assert not escaped.exists()
        assert {path.name for path in tmp_path.rglob("*")} <= {"data", "way"}


def test_answers_that_are_nonsense(hostile: Daemon) -> None:
    """Each question about the guest ends in one line; an answer without end is not kept."""
    with turning(hostile):
        with attack(hostile, "lies") as attacking:
            attacking.communicate(timeout=30)
        assert "nonsense" in refused(hostile.cli("cp", "evil:/data", "-"))
        assert "too long" in refused(hostile.cli("diff", "evil"))
        assert "too long" in refused(hostile.cli("top", "evil"))
        assert hostile.ok("stats", "--no-stream", "--format", "{{.PIDs}}", "evil") == "0"
        undisturbed(hostile)

"""VMs of other architectures: the same verbs on an emulated processor, booted once and restored ever after."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests import foreign
from tests.contract.place import Place, line

from bastide.hypervisor import architecture
from bastide.model.config import Settings
from bastide.model.container import HostConfig
from bastide.model.process import TerminalSize
from bastide.runtime import Files, Phase, Snapshotting
from bastide.runtime.qemu import Qemu

pytestmark = pytest.mark.timeout(300)

OTHERS = [name for name in foreign.MACHINES if architecture.ARCHITECTURES[name] is not architecture.NATIVE]
COUNTER = ("sh", "-c", "while true; do echo again >> /data/n; sleep 0.1; done")


BOTH = pytest.mark.parametrize("vm", OTHERS, indirect=True)
"""Every verb is tried on one of them, what depends on the machine on all."""


@pytest.fixture
async def vm(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Place]:
    made = Place("qemu", settings, getattr(request, "param", OTHERS[0]))
    await made.open()
    yield made
    await made.close()


@BOTH
async def test_the_image_runs_on_its_own_kernel(vm: Place) -> None:
    ended, out, err = await vm.run("sh", "-c", "uname -m; echo problem >&2; exit 7")
    assert (ended.code, out.strip(), err.strip()) == (7, foreign.MACHINES[vm.architecture], "problem")


async def test_execs_signals_terminals_and_limits(vm: Place) -> None:
    host = HostConfig(memory=192 << 20, nano_cpus=2_000_000_000)
    container, stdio = await vm.start(
        "sh", "-c", "stty size; cat", terminal=True, size=TerminalSize(rows=33, columns=77), stdin=True, host=host
    )
    assert (await line(stdio.output())).strip() == b"33 77"
    ended, out, _ = await vm.exec(container, "sh", "-c", "nproc; cat /sys/fs/cgroup/memory.max; date +%Y")
    count, limit, year = out.split()
    assert ended.code == 0
    assert (count, int(limit)) == ("2", 192 << 20)
    assert int(year) >= 2026
    assert (await vm.exec(container, "cat", stdin=b"x" * 100_000))[1] == "x" * 100_000
    await vm.runtime.kill(container, signal.SIGKILL)
    assert (await vm.runtime.wait(container)).code == 128 + signal.SIGKILL


async def test_files_go_in_and_come_out(vm: Place) -> None:
    assert isinstance(vm.runtime, Files)
    container, _ = await vm.start("sh", "-c", "trap 'exit 3' TERM; echo here > /data/file; sleep 100 & wait")
    await asyncio.sleep(0.3)
    assert (await vm.runtime.stat_path(container, "/data/file"))["size"] == 5
    assert (1, "/data/file") in await vm.runtime.changes(container)
    pieces = [piece async for piece in vm.runtime.get_archive(container, "/data/file")]
    assert b"here\n" in b"".join(pieces)
    await vm.runtime.kill(container, signal.SIGTERM)
    assert (await vm.runtime.wait(container)).code == 3


async def test_clones_share_no_secrets(vm: Place) -> None:
    dump = ("sh", "-c", "head -c 32 /dev/urandom | md5sum; cat /proc/sys/kernel/random/boot_id")
    (_, first, _), (_, second, _) = [await vm.run(*dump) for _ in range(2)]
    assert not set(first.split()) & set(second.split()) - {"-"}


@BOTH
async def test_a_saved_vm_goes_on_as_another(vm: Place, tmp_path: Path) -> None:
    assert isinstance(vm.runtime, Snapshotting)
    container, _ = await vm.start(*COUNTER)
    await asyncio.sleep(1)
    await vm.runtime.save(container, tmp_path)
    clone = await vm.bundle("unused", hostname="clone")
    await vm.runtime.restore(clone, tmp_path)
    assert (await vm.runtime.state(clone.id)).phase is Phase.RUNNING
    assert (await vm.exec(clone.id, "sh", "-c", "hostname; uname -m"))[1].split() == [
        "clone",
        foreign.MACHINES[vm.architecture],
    ]
    assert int((await vm.exec(clone.id, "sh", "-c", "wc -l < /data/n"))[1]) > 1


async def test_an_image_that_is_used_again_gets_a_template_of_its_own(vm: Place) -> None:
    for _ in range(2):
        await vm.run("true")
    assert isinstance(vm.runtime, Qemu)
    await asyncio.gather(*vm.runtime.warming)
    ended, out, _ = await vm.run("uname", "-m")
    assert (ended.code, out.strip()) == (0, foreign.MACHINES[vm.architecture])

"""Memory of VMs: limits as in containers, growth, and what is freed goes back to the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.place import Place, line
from tests.contract.test_vm import hypervisor

from bastide.model.config import Settings
from bastide.model.container import HostConfig
from bastide.model.process import Process
from bastide.runtime import Updating

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def vm(settings: Settings) -> AsyncIterator[Place]:
    made = Place("qemu", settings)
    await made.open()
    yield made
    await made.close()


def private(pid: int) -> int:
    """Megabytes that a process alone holds."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) >> 10


async def test_what_the_guest_frees_goes_back(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100", host=HostConfig(memory=300 << 20))
    pid = await hypervisor(vm, container)
    grab = "x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo ${#x}; read line"
    process = Process(args=("sh", "-c", grab), env=("PATH=/bin",), stdin=True)
    stdio = await vm.runtime.exec(container, "grab", process)
    assert await line(stdio.output()) == b"60000000\n"
    most = private(pid)
    assert most > 60
    await stdio.write(b"\n")
    assert (await vm.runtime.wait(container, "grab")).code == 0
    for _ in range(300):
        if private(pid) <= most - 50:
            break
        await asyncio.sleep(0.2)
    assert private(pid) <= most - 50
    assert (await vm.exec(container, "echo", "well"))[1] == "well\n"


async def test_a_limit_is_what_processes_can_have(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100", host=HostConfig(memory=200 << 20))
    grab = ("dd", "if=/dev/zero", "of=/dev/null", "count=1")
    assert (await vm.exec(container, *grab, "bs=180M"))[0].code == 0
    assert (await vm.exec(container, *grab, "bs=220M"))[0].code == 137
    assert (await vm.exec(container, "cat", "/sys/fs/cgroup/memory.max"))[1] == f"{200 << 20}\n"
    runtime = vm.runtime
    assert isinstance(runtime, Updating)
    await runtime.update(container, HostConfig(memory=300 << 20))
    assert (await vm.exec(container, *grab, "bs=220M"))[0].code == 0

"""What a VM honours of a HostConfig, and what it refuses by name."""

from __future__ import annotations

import re

import pytest

from bastide.hypervisor.accelerator import Accelerator
from bastide.hypervisor.machine import Machine
from bastide.model.container import DeviceRequest, HostConfig
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.runtime import vm_limits

MACHINE = Machine(qemu="qemu", version=(7, 2, 0), accelerator=Accelerator.TCG, memory=256 << 20, cpus=2)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (HostConfig(device_requests=[DeviceRequest(count=-1)]), "--gpus"),
        (HostConfig(oom_kill_disable=True, memory=1 << 28), "--oom-kill-disable"),
        (HostConfig(cpu_realtime_runtime=1000), "--cpu-rt-runtime"),
        (HostConfig(kernel_memory_tcp=1 << 20), "--kernel-memory-tcp"),
        (HostConfig(masked_paths=["/proc/kcore"]), "MaskedPaths"),
        (HostConfig(readonly_paths=["/proc/sys"]), "ReadonlyPaths"),
        (HostConfig(security_opt=['seccomp={"defaultAction": "SCMP_ACT_ERRNO"}']), "--security-opt seccomp"),
        (HostConfig(security_opt=["apparmor=mine"]), "--security-opt apparmor"),
        (HostConfig(security_opt=["label=type:x"]), "--security-opt label"),
    ],
)
def test_refused_by_name(host: HostConfig, name: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(name)):
        vm_limits.check(host)


def test_an_unknown_security_option() -> None:
    with pytest.raises(InvalidArgument, match="invalid --security-opt"):
        vm_limits.check(HostConfig(security_opt=["nonsense=1"]))


def test_honoured() -> None:
    options = [
        "no-new-privileges",
        "seccomp=unconfined",
        "apparmor:unconfined",
        "label=disable",
        "systempaths=unconfined",
    ]
    vm_limits.check(HostConfig(security_opt=options, masked_paths=[], readonly_paths=[], oom_kill_disable=False))


@pytest.mark.parametrize(
    ("host", "count"),
    [
        (HostConfig(), 0),
        (HostConfig(nano_cpus=500_000_000), 1),
        (HostConfig(nano_cpus=2_100_000_000), 3),
        (HostConfig(cpu_quota=150_000), 2),
        (HostConfig(cpu_quota=50_000, cpu_period=10_000), 5),
        (HostConfig(cpu_quota=-1), 0),
    ],
)
def test_processors(host: HostConfig, count: int) -> None:
    assert vm_limits.processors(host) == count


@pytest.mark.parametrize(
    ("limit", "machine"), [(0, 192), (6, 128), (16, 128), (64, 256), (150, 256), (256, 512), (512, 1024), (2048, 3072)]
)
def test_machines_for_limits(limit: int, machine: int) -> None:
    assert vm_limits.machine_memory(HostConfig(memory=limit << 20), 192 << 20, 3 << 30) == machine << 20


def test_growth_of_what_runs() -> None:
    vm_limits.check_growth(HostConfig(memory=153 << 20, nano_cpus=2_000_000_000), MACHINE)
    with pytest.raises(Unsupported, match="beyond the 153 MB"):
        vm_limits.check_growth(HostConfig(memory=160 << 20), MACHINE)
    with pytest.raises(Unsupported, match="more than the 2 CPUs"):
        vm_limits.check_growth(HostConfig(nano_cpus=2_500_000_000), MACHINE)

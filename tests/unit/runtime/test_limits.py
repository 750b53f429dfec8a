from __future__ import annotations

from typing import Any

import pytest

from bastide.host import cgroups
from bastide.model.container import HostConfig, ThrottleDevice
from bastide.model.errors import InvalidArgument
from bastide.runtime.limits import limits


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (HostConfig(), {}),
        (HostConfig(memory=10), {"memory": {"limit": 10, "swap": 20}}),
        (HostConfig(memory=10, memory_swap=-1), {"memory": {"limit": 10, "swap": -1}}),
        (HostConfig(memory=10, memory_swap=15), {"memory": {"limit": 10, "swap": 15}}),
        (
            HostConfig(memory_swappiness=0, oom_kill_disable=True),
            {"memory": {"swappiness": 0, "disableOOMKiller": True}},
        ),
        (HostConfig(memory_swappiness=-1, pids_limit=-1), {}),
        (HostConfig(pids_limit=0), {}),
        (HostConfig(nano_cpus=250_000_000), {"cpu": {"quota": 25000, "period": 100000}}),
        (
            HostConfig(cpu_quota=5000, cpu_period=10000, cpu_shares=5),
            {"cpu": {"shares": 5, "quota": 5000, "period": 10000}},
        ),
        (HostConfig(blkio_weight=10), {"blockIO": {"weight": 10}}),
    ],
)
def test_fields(host: HostConfig, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "swap_counted", lambda: True)
    assert limits(host) == expected


def test_swap_is_left_out_where_it_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "swap_counted", lambda: False)
    assert limits(HostConfig(memory=10)) == {"memory": {"limit": 10}}


@pytest.mark.parametrize("path", ["/dev/null", "/dev/absent", ""])
def test_throttled_devices_are_block_devices(path: str) -> None:
    with pytest.raises(InvalidArgument):
        limits(HostConfig(blkio_device_read_bps=[ThrottleDevice(path=path, rate=1)]))

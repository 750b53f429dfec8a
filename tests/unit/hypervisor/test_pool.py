"""How many VMs wait, and on which machines any do."""

from __future__ import annotations

import pytest

from bastide.hypervisor import pool
from bastide.hypervisor.pool import Demand, allowance
from bastide.model.config import Settings


def test_as_many_wait_as_were_asked_for_lately() -> None:
    demand = Demand("image")
    assert demand.wanted(1000) == 0
    demand.asked.extend((1000.0, 1010.0, 1020.0))
    assert demand.wanted(1030) == 3
    # The first two are more than a minute ago, then all of them.
    assert demand.wanted(1075) == 1
    assert demand.wanted(1200) == 1
    # Nobody has asked for a quarter of an hour.
    assert demand.wanted(1020 + 901) == 0


def test_no_more_wait_than_there_is_room_for_in_the_list() -> None:
    demand = Demand("image")
    demand.asked.extend(float(moment) for moment in range(1000, 1040))
    assert demand.wanted(1041) == 8


@pytest.mark.parametrize(
    ("processors", "gigabytes", "limit", "reason"),
    [
        (2, 64, 0, "this machine is small (2 processors and 64 GiB of memory; it is on from 4 and 15 GiB)"),
        (8, 8, 0, "this machine is small (8 processors and 8 GiB of memory; it is on from 4 and 15 GiB)"),
        (4, 32, 1 << 30, ""),
    ],
)
def test_a_small_machine_has_none(
    monkeypatch: pytest.MonkeyPatch, processors: int, gigabytes: int, limit: int, reason: str
) -> None:
    monkeypatch.setattr(pool.os, "cpu_count", lambda: processors)
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gigabytes << 18}
    monkeypatch.setattr(pool.os, "sysconf", lambda name: pages[name])
    assert allowance(Settings()) == (limit, reason)


@pytest.mark.parametrize(("asked", "reason"), [(0, "pool_memory is 0"), (1 << 28, "")])
def test_a_setting_is_what_counts(asked: int, reason: str) -> None:
    assert allowance(Settings(pool_memory=asked)) == (asked, reason)

"""What guests say about themselves is parsed strictly; lies are errors or zeros, never a crash."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from typing import cast

import msgspec
import pytest

from bastide.hypervisor.agent import Agent
from bastide.hypervisor.inside import _columns, _row, changes, parse_stats, pids, stat_path
from bastide.model.errors import GuestError, InvalidArgument

STATS = b"""=== /proc/stat
cpu  10 0 20 100 5 1 2 0 0 0
cpu0 10 0 20 100 5 1 2 0 0 0
=== /proc/meminfo
MemTotal:         250000 kB
MemFree:          150000 kB
Buffers:            1000 kB
Cached:            20000 kB
=== /proc/net/dev
Inter-|   Receive                                                |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    1       1    0    0    0     0          0         0      1       1    0    0    0     0       0          0
  eth0: 1000      10    1    2    0     0          0         0   2000      20    3    4    0     0       0          0
=== /proc/diskstats
 254       0 vda 100 0 800 10 0 0 0 0 0 10 10 0 0 0 0 0 0
 254      16 vdb 10 0 80 1 20 0 160 1 0 1 1 0 0 0 0 0 0
=== pids.current
58
"""


def test_stats() -> None:
    found = parse_stats(STATS, 256 << 20)
    assert found.cpu_user == 100_000_000
    assert found.cpu_system == 230_000_000
    assert found.cpu_per_core == (330_000_000,)
    assert found.memory == 100_000 * 1024
    assert found.memory_limit == 256 << 20
    assert found.pids == 57
    assert (found.block_read, found.block_write) == (880 * 512, 160 * 512)
    assert found.interfaces["eth0"]["tx_dropped"] == 4
    assert "lo" not in found.interfaces


def test_lies_are_zeros() -> None:
    source = random.Random(3)
    for _ in range(300):
        data = bytearray(STATS)
        for _ in range(30):
            data[source.randrange(len(data))] = source.randrange(256)
        parse_stats(bytes(data[: source.randrange(len(data))]), 1)


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5000, "9" * 15, "-1", "nan"])
def test_numbers_that_are_none_or_huge(number: str) -> None:
    """They have places in an answer of the API, or are left out."""
    found = parse_stats(re.sub(rb"\b\d+\b", number.encode(), STATS), 1)
    assert msgspec.json.encode(msgspec.structs.asdict(found))


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("stat", b"1 " * 40_000),
        ("stat", b"\0" * 2),
        ("changes", b"A\0" * 600_000),
        ("processes", b"1 1\0" + b"\0" * 200_000),
        ("processes", b"nan\0"),
        ("processes", b"inf\0"),
        ("processes", b""),
    ],
)
async def test_answers_that_cost_more_than_they_should(function: str, answer: bytes) -> None:
    class Said:
        """A function's streams that hold `answer`."""

        ended: asyncio.Future[tuple[int, bool]]

        async def output(self) -> AsyncIterator[tuple[int, bytes]]:
            self.ended = asyncio.get_running_loop().create_future()
            self.ended.set_result((0, False))
            yield 1, answer

        def detach(self) -> None:
            pass

    class Lying:
        async def run(self, _: bytes) -> Said:
            return Said()

    agent = cast(Agent, Lying())
    asked = {
        "stat": lambda: stat_path(agent, "/x"),
        "changes": lambda: changes(agent),
        "processes": lambda: pids(agent),
    }
    with pytest.raises(GuestError):
        await asked[function]()


def test_a_row_of_top() -> None:
    stat = "42 (my (evil) prog) S 1 42 42 34816 42 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1000 2314240 25 0 0"
    row = _row("0", stat, "", 110.0, 1_000_000.0)
    assert (row["PID"], row["PPID"], row["STAT"], row["TIME"], row["TTY"]) == ("42", "1", "S", "00:00:02", "pts/0")
    assert row["CMD"] == "[my (evil) prog]"
    assert row["C"] == "2"


@pytest.mark.parametrize("stat", ["1 (x) S 1", "1 (x) " + "999999999999999999999999 " * 30, "1 (x) " + "a " * 30])
def test_a_row_of_nonsense(stat: str) -> None:
    with pytest.raises(GuestError):
        _row("0", stat, "", 1.0, 1.0)


def test_forms_of_ps() -> None:
    assert _columns([])[0] == "UID"
    assert _columns(["-eo", "pid,args"]) == ("PID", "ARGS")
    with pytest.raises(InvalidArgument):
        _columns(["--forest"])

"""What guests say about themselves is parsed strictly; lies are errors or zeros, never a crash."""

from __future__ import annotations

import random

import pytest

from bastide.hypervisor.inside import _columns, _row, parse_stats
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

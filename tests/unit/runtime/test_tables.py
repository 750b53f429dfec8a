from __future__ import annotations

import pytest

from bastide.model.errors import InvalidArgument
from bastide.runtime.tables import parse_interfaces, select

PS = """UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 10:00 ?        00:00:01 /sbin/init
root          42       1  0 10:00 ?        00:00:00 sh -c sleep 100 & wait
web           43      42  0 10:00 ?        00:00:00 sleep 100
"""
NET = """Inter-|   Receive                    |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
  eth0: 10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0
"""


def test_select() -> None:
    titles, rows = select(PS, {42, 43, 99})
    assert titles[1] == "PID"
    assert [row[1] for row in rows] == ["42", "43"]
    assert rows[0][-1] == "sh -c sleep 100 & wait"


@pytest.mark.parametrize("text", ["", "CMD\nsleep\n"])
def test_pid_is_needed(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Couldn't find PID field in ps output"):
        select(text, {1})


def test_interfaces() -> None:
    assert parse_interfaces(NET) == {
        "eth0": {
            "rx_bytes": 10, "rx_packets": 11, "rx_errors": 12, "rx_dropped": 13,
            "tx_bytes": 20, "tx_packets": 21, "tx_errors": 22, "tx_dropped": 23,
        }
    }  # fmt: skip

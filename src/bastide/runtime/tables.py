"""Tables that the host prints: `ps`, and the counters of a network namespace."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bastide.model.errors import InvalidArgument


def select(text: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """The titles of ps's output and the rows of these pids. Raises InvalidArgument without a PID column."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows


_COUNTERS = {
    "rx_bytes": 0,
    "rx_packets": 1,
    "rx_errors": 2,
    "rx_dropped": 3,
    "tx_bytes": 8,
    "tx_packets": 9,
    "tx_errors": 10,
    "tx_dropped": 11,
}
"""Docker's names, and the columns of /proc/net/dev (proc(5))."""


def interfaces(pid: int) -> dict[str, dict[str, int]]:
    """The counters of a process's own network interfaces; none when it shares the host's namespace."""
    try:
        if Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
            return {}
        text = Path(f"/proc/{pid}/net/dev").read_text()
    except OSError:
        return {}
    return parse_interfaces(text)


def parse_interfaces(text: str) -> dict[str, dict[str, int]]:
    """/proc/net/dev, without loopback."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        columns = rest.split()
        if name.strip() != "lo" and len(columns) > max(_COUNTERS.values()):
            found[name.strip()] = {key: int(columns[column]) for key, column in _COUNTERS.items()}
    return found

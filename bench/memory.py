"""Memory of an engine's processes as PSS: what they use, shared pages divided among those that share them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KIB_PER_MB = 1000**2 / 1024


@dataclass(frozen=True)
class Match:
    """Tells a process by a part of its program's or module's name, and by a text in its command line."""

    program: str
    text: str = ""

    def __call__(self, arguments: list[str]) -> bool:
        named = Path(arguments[0]).name.startswith(self.program) or self.program in arguments[1:3]
        return named and any(self.text in argument for argument in arguments)


def processes(matches: Iterable[Match]) -> list[Path]:
    """The /proc folders of the processes that match; the namespace holds nobody else's."""
    wanted = list(matches)
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (arguments := _arguments(folder)) and any(match(arguments) for match in wanted):
            found.append(folder)
    return found


def _arguments(folder: Path) -> list[str]:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def pss(matches: Iterable[Match]) -> float:
    """Megabytes (10^6 bytes) of all the processes that match, from smaps_rollup (proc(5))."""
    return sum(map(_pss, processes(matches))) / KIB_PER_MB


def _pss(folder: Path) -> int:
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

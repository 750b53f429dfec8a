"""The plan that the VM monitor reads: QEMU's command line and the descriptors that it gets.

The monitor (monitor/vmm.c) opens what is listed, as root; QEMU itself can open nothing of the host's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bastide.model.errors import InvalidArgument

FIRST = 10
"""Number of the first descriptor; below are the streams and what QEMU's libraries open early."""


class Plan:
    """Lines for the monitor. Numbers of descriptors are given out in order."""

    def __init__(self, uid: int) -> None:
        self._lines = [f"uid {uid}"]
        self._arguments: list[str] = []
        self._next = FIRST

    def _grant(self, kind: str, value: str) -> int:
        number = self._next
        self._next += 1
        self._add(f"fd {number} {kind} {value}")
        return number

    def _add(self, line: str) -> None:
        if "\n" in line or "\0" in line:
            raise InvalidArgument(f"a path or name holds a line break: {line!r}")
        self._lines.append(line)

    def read(self, path: Path) -> int:
        """A file for reading; gives the descriptor's number in QEMU."""
        return self._grant("read", str(path))

    def write(self, path: Path) -> int:
        """A file for reading and writing."""
        return self._grant("write", str(path))

    def listen(self, path: Path) -> int:
        """A listening unix socket."""
        return self._grant("listen", str(path))

    def tap(self, name: str) -> int:
        """The queue of a tap device; "" makes one that ends with QEMU."""
        return self._grant("tap", name)

    def stdio(self) -> int:
        """The main process's streams, which the monitor moves."""
        return self._grant("stdio", "-")

    def agent(self) -> int:
        """The agent's channel, whose other end the monitor hands to whoever connects to the vendor."""
        return self._grant("agent", "-")

    def shares(self) -> int:
        """The channel of the file server, which the monitor starts when there is a `share`."""
        return self._grant("shares", "-")

    def share(self, options: Sequence[str], path: str, within: str = "") -> None:
        """A tree for the file server; `options` are words that monitor/vmm_plan.c knows.

        `within`: a path in the tree that is meant instead of all of it, looked up without leaving it.
        """
        self._add(f"share {','.join(options) or '-'} {path}")
        if within:
            self._add(f"within {within}")

    def console(self) -> int:
        """The guest's serial port: the monitor keeps its last lines."""
        return self._grant("console", "-")

    def setup(self, *commands: Mapping[str, object]) -> int:
        """A QMP channel on which the monitor sends `commands` as soon as QEMU runs."""
        for command in commands:
            self._add("qmp " + json.dumps(command))
        return self._grant("setup", "-")

    def vendor(self, path: Path) -> None:
        """Where the monitor hands out the agent's channel."""
        self._add(f"vendor {path}")

    def leash(self) -> None:
        """The monitor, and QEMU with it, ends when the monitor's stdin does."""
        self._add("leash 1")

    def keep(self, path: Path) -> None:
        """QEMU is kept until another monitor connects here and takes it over."""
        self._add(f"keep {path}")

    def adopt(self, path: Path) -> None:
        """Take over the QEMU that another monitor keeps, instead of starting one."""
        self._add(f"adopt {path}")

    def attach(self, name: str) -> None:
        """Give the next tap queue of the QEMU that was taken over this device; its own is being removed."""
        self._add(f"attach {name}")

    def tell(self, command: Mapping[str, object], *, read: Path | None = None, write: Path | None = None) -> None:
        """A QMP command for the QEMU that was taken over, with an open file if one is named."""
        if path := write or read:
            self._add(f"lend {'write' if write else 'read'} {path}")
        self._add("qmp " + json.dumps(command))

    def resync(self) -> None:
        """The guest was saved amid its streams: skip what was meant for another monitor."""
        self._add("resync 1")

    def preload(self, path: Path) -> None:
        """A library to load into QEMU."""
        self.view(path)
        self._add(f"preload {path}")

    def view(self, path: Path) -> None:
        """A file, folder or link of the host's that QEMU sees, read-only; nothing where it does not exist."""
        self._add(f"view {path}")

    def cgroup(self, path: Path) -> None:
        """A `cgroup.procs` file that QEMU is written into."""
        self._add(f"cgroup {path}")

    def arguments(self, *words: str) -> None:
        """Further words of QEMU's command line."""
        self._arguments += words

    @property
    def command(self) -> Sequence[str]:
        """QEMU's command line."""
        return tuple(self._arguments)

    def text(self) -> str:
        """The file's content."""
        for word in self._arguments:
            self._add(f"arg {word}")
        self._arguments = []
        return "\n".join(self._lines) + "\n"

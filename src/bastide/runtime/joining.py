"""More processes in a container on hosts with version 1 cgroups, without the 10 ms that a move costs there.

`monitor/join.c` enters the container's groups itself, which takes no lock of the whole system, and runs the
runtime's `exec` from within. The runtime must not move the process once more: it is given a record of the
container that names no group. Version 2 hosts need none of it: there crun's child begins in its group
(clone(2), CLONE_INTO_CGROUP).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from bastide.host import cgroups
from bastide.host.paths import write_whole
from bastide.runtime.foreground import Entrance

_PIDS, _MEMORY = 8, 16 << 20
"""What the joining program and crun may take of a container's limits until the process runs, amply."""
_LINKED = ("config.json", "seccomp.bpf")
"""What crun's `exec` reads beside `status` (libcrun's container.c, libcrun_container_exec_with_options)."""


class Joining:
    """The way into the groups of the containers of one crun.

    `state` is crun's own root, `home` a folder of ours beside it, `program` the joining program.
    """

    def __init__(self, program: Path, state: Path, home: Path) -> None:
        self._program, self._state, self.root = program, state, home

    def entrance(self, container: str, group: cgroups.Group) -> Entrance | None:
        """How an exec gets in; None where the runtime does it as well: version 2, or no joining program.

        And where the container is at its limits: somebody may come to see why, and crun outside needs less room.
        """
        groups = group.entrances()
        if groups is None or not self._program.exists() or not group.has_room(_PIDS, _MEMORY):
            return None
        self._record(container)
        into, back = groups
        return Entrance(self._program, into, back)

    def _record(self, container: str) -> None:
        """See to it that the container's record without a group is there (crun's status.c, 1.8)."""
        own, place = self._state / container, self.root / container
        if (place / "status").exists():
            return
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in _LINKED:
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(own / name, place / name)
        status = msgspec.json.decode((own / "status").read_bytes())
        write_whole(place / "status", msgspec.json.encode(status | {"cgroup-path": "", "scope": ""}))

    def forget(self, container: str) -> None:
        """Remove the record."""
        shutil.rmtree(self.root / container, ignore_errors=True)

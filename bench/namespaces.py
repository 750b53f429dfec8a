"""The bench runs in namespaces of its own: what the engines leave (mounts, bridges, rules, processes) ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

MARK = "BASTIDE_BENCH_INSIDE"
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def inside() -> bool:
    """Whether this process is in them."""
    return MARK in os.environ


def enter() -> NoReturn:
    """Start this program again, inside."""
    os.environ[MARK] = "1"
    os.execvp(UNSHARE[0], [*UNSHARE, sys.executable, "-m", "bench", *sys.argv[1:]])


def settle() -> None:
    """Inside: make the namespaces fit to work in. Returns in a child of their first process."""
    if os.getpid() == 1:
        _reap_until_child_ends()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # crun refuses a version 2 hierarchy beside version 1 ones; where it is the only one, it stays.
    if os.path.ismount("/sys/fs/cgroup/unified"):
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)


def _reap_until_child_ends() -> None:
    """The first process of the namespace inherits every orphan: it waits for them while the child measures."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)

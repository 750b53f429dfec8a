"""The bench runs in namespaces of its own: what the engines leave (mounts, bridges, rules, processes) ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

MARK = "BASTIDE_BENCH_INSIDE"
HYBRID = Path("/sys/fs/cgroup/unified")
"""Where a version 2 hierarchy is mounted beside version 1 ones, if it is."""
GROUP = HYBRID / f"bastide-bench-{os.getpid()}"
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc")


def work() -> Path | None:
    """Inside: the folder to work in, that is removed after everything has ended. Outside: None."""
    return Path(os.environ[MARK]) if MARK in os.environ else None


def enter() -> int:
    """Run this program again, inside; its exit status."""
    hybrid = os.path.ismount(HYBRID)
    if hybrid:
        (GROUP / "inner").mkdir(parents=True)
    join = f"echo $$ >{GROUP}/inner/cgroup.procs; " if hybrid else ""
    argv = ["sh", "-c", f'{join}exec "$@"', "sh", *UNSHARE, sys.executable, "-m", "bench", *sys.argv[1:]]
    try:
        with tempfile.TemporaryDirectory(prefix="bastide-bench-", dir="/var/tmp") as folder:
            return subprocess.run(argv, env=os.environ | {MARK: folder}, check=False).returncode
    finally:
        for group, _, _ in os.walk(GROUP, topdown=False):
            with contextlib.suppress(OSError):
                Path(group).rmdir()


def settle() -> None:
    """Inside: make the namespaces fit to work in. Returns in a child of their first process."""
    if os.getpid() == 1:
        _reap_until_child_ends()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # crun refuses a version 2 hierarchy with controllers beside version 1; two levels down there are none.
    if os.path.ismount(HYBRID):
        subprocess.run(["umount", str(HYBRID)], check=True)
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(HYBRID)], check=True)


def _reap_until_child_ends() -> None:
    """The first process of the namespace inherits every orphan: it waits for them while the child measures."""
    child = os.fork()
    if child == 0:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)

"""Whether a command can be found in a running container, before a process is spent on the question.

Only what is certain is answered: what needs the process itself (its rights, magic links) the runtime finds out.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from bastide.host.paths import open_in
from bastide.model.errors import BastideError
from bastide.model.process import Process
from bastide.runtime.refusals import refusal


def check(root: int, process: Process, verb: str = "exec") -> BastideError | None:
    """The error that starting the command would end in; None when it may well start. `root`: the tree."""
    command = process.args[0]
    if "/" in command:
        found = _look(root, posixpath.join(process.cwd or "/", command))
    else:
        path = next((entry[5:] for entry in process.env if entry.startswith("PATH=")), None)
        if path is None:
            return None
        looks = [_look(root, posixpath.join(folder or ".", command)) for folder in path.split(":")]
        found = next((look for look in looks if look != errno.ENOENT), errno.ENOENT)
    if found == 0:
        return None
    return refusal(f"executable: {os.strerror(found).lower()}", command, verb)


def _look(root: int, path: str) -> int:
    """0, or why the file cannot be executed: ENOENT, EISDIR, EACCES (no execute bit)."""
    try:
        fd = open_in(root, path)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR) and not _depends(root, path)
        return errno.ENOENT if missing else 0
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return 0 if mode & 0o111 else errno.EACCES


def _depends(root: int, path: str) -> bool:
    """Whether the answer depends on who asks: /proc/self is not ours, and a link may lead there."""
    if posixpath.normpath("/" + path.lstrip("/")).startswith("/proc/"):
        return True
    try:
        os.close(open_in(root, path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True

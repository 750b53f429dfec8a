"""Starting the daemon when it is not running and its own socket was meant.

The daemon says `READY=1` on the datagram socket that NOTIFY_SOCKET names (sd_notify(3)), as under systemd; nothing
here polls or sleeps. Two command lines that find no daemon at once start one: the first holds a lock.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SOCK_DGRAM, SOCK_STREAM, socket

from bastide.cli.grammar import CommandError

_LOG = "bastided.log"
_PATIENCE = 60  # seconds; a start with many containers to take up again takes a few
_KEPT = ("HOME", "LANG", "LC_ALL", "PATH", "TZ")
_KEPT_PREFIXES = ("BASTIDE_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_ENGINE_ERROR = 125
_PROGRAM = "from bastide.daemon import main; sys.exit(main())"


def program(arguments: list[str]) -> list[str]:
    """The command line of the daemon, with this interpreter and the source that this file is in."""
    source = __file__.rsplit("/", 3)[0]
    return [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {source!r}); {_PROGRAM}", *arguments]


def start(path: str) -> bool:
    """Start the daemon that listens at `path` and wait until it is ready. False when this user may not.

    Raises CommandError when it does not start.
    """
    if os.geteuid() != 0:
        return False
    import fcntl

    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    lock = os.open(f"{folder}/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(path):
            _start(folder)
    finally:
        os.close(lock)
    return True


def _answers(path: str) -> bool:
    probe = socket(AF_UNIX, SOCK_STREAM)
    try:
        probe.connect(path)
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _start(folder: str) -> None:
    path, log = f"{folder}/ready.{os.getpid()}", f"{folder}/{_LOG}"
    ready = socket(AF_UNIX, SOCK_DGRAM)
    try:
        ready.bind(path)
        os.chmod(path, 0o600)
        _wait(ready, _spawn(path, log), log)
    finally:
        ready.close()
        os.unlink(path)


def _spawn(notify: str, path: str) -> int:
    """Run the daemon in a session of its own, its output in its log; the process id."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    environment = {n: v for n, v in os.environ.items() if n in _KEPT or n.startswith(_KEPT_PREFIXES)}
    environment.pop("BASTIDE_HOST", None)
    environment["NOTIFY_SOCKET"] = notify
    command = program([])
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir("/")
            for descriptor, target in ((null, 0), (log, 1), (log, 2)):
                os.dup2(descriptor, target)
            os.execve(command[0], command, environment)
        finally:
            os._exit(127)
    os.close(log)
    os.close(null)
    return child


def _wait(ready: socket, child: int, log: str) -> None:
    """Until the daemon is ready. Raises CommandError when it ends or takes too long."""
    from select import POLLIN, poll
    from time import monotonic

    process = os.pidfd_open(child)
    waiter = poll()
    waiter.register(ready.fileno(), POLLIN)
    waiter.register(process, POLLIN)
    end = monotonic() + _PATIENCE
    try:
        while (left := end - monotonic()) > 0:
            events = dict(waiter.poll(left * 1000))
            if ready.fileno() in events and b"READY=1" in ready.recv(4096).split(b"\n"):
                return
            if process in events:
                raise CommandError(f"the daemon did not start: {_last_words(log)} (see {log})", _ENGINE_ERROR)
    finally:
        os.close(process)
    raise CommandError(f"the daemon is not ready after {_PATIENCE} s: see {log}", _ENGINE_ERROR)


def _last_words(path: str) -> str:
    """The last line of the daemon's log."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

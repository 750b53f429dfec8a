"""Starting the daemon when it is not running and the default socket was meant.

The daemon says `READY=1` on the datagram socket that NOTIFY_SOCKET names (sd_notify(3)), as under systemd; nothing
here polls or sleeps. Two command lines that find no daemon at once start one: the first holds a lock.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SOCK_DGRAM, SOCK_STREAM, socket

from bastide.cli.grammar import CommandError
from bastide.client.endpoint import DEFAULT

_SOCKET = DEFAULT.removeprefix("unix://")
_RUN_ROOT = os.path.dirname(_SOCKET)  # noqa: PTH120
_LOG = f"{_RUN_ROOT}/bastided.log"
_PATIENCE = 30_000  # milliseconds; a cold start with many containers to take up again takes a few seconds
_KEPT = ("HOME", "LANG", "LC_ALL", "PATH", "TZ")
_KEPT_PREFIXES = ("BASTIDE_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_ENGINE_ERROR = 125


def start() -> bool:
    """Start the daemon and wait until it answers. False when this user may not. Raises CommandError."""
    if os.geteuid() != 0:
        return False
    import fcntl

    os.makedirs(_RUN_ROOT, mode=0o755, exist_ok=True)  # noqa: PTH103
    lock = os.open(f"{_RUN_ROOT}/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers():
            _start()
    finally:
        os.close(lock)
    return True


def _answers() -> bool:
    probe = socket(AF_UNIX, SOCK_STREAM)
    try:
        probe.connect(_SOCKET)
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _start() -> None:
    path = f"{_RUN_ROOT}/ready.{os.getpid()}"
    ready = socket(AF_UNIX, SOCK_DGRAM)
    try:
        ready.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101
        _wait(ready, _spawn(path))
    finally:
        ready.close()
        os.unlink(path)  # noqa: PTH108


def _spawn(notify: str) -> int:
    """Run the daemon in a session of its own, its output in its log; the process id."""
    log = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    source = __file__.rsplit("/", 3)[0]
    program = f"import sys; sys.path.insert(0, {source!r}); from bastide.daemon import main; sys.exit(main())"
    environment = {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    environment.pop("BASTIDE_HOST", None)
    environment["NOTIFY_SOCKET"] = notify
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir("/")
            null = os.open("/dev/null", os.O_RDWR)
            for source_fd, target in ((null, 0), (log, 1), (log, 2)):
                os.dup2(source_fd, target)
            os.execve(sys.executable, [sys.executable, "-I", "-c", program], environment)
        finally:
            os._exit(127)
    os.close(log)
    return child


def _wait(ready: socket, child: int) -> None:
    """Until the daemon is ready. Raises CommandError when it ends or takes too long."""
    from select import POLLIN, poll
    from time import monotonic

    process = os.pidfd_open(child)
    waiter = poll()
    waiter.register(ready.fileno(), POLLIN)
    waiter.register(process, POLLIN)
    end = monotonic() + _PATIENCE / 1000
    try:
        while (left := end - monotonic()) > 0:
            events = dict(waiter.poll(left * 1000))
            if ready.fileno() in events and b"READY=1" in ready.recv(4096).split(b"\n"):
                return
            if process in events:
                raise CommandError(f"the daemon did not start: {_last_words()} (see {_LOG})", _ENGINE_ERROR)
    finally:
        os.close(process)
    raise CommandError(f"the daemon is not ready after {_PATIENCE // 1000} s: see {_LOG}", _ENGINE_ERROR)


def _last_words() -> str:
    """The last line of the daemon's log."""
    with open(_LOG, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

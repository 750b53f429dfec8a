"""bastided: settings, engine, servers. The only place that wires."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import grp
import logging
import os
import resource
import signal
import socket
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bastide.model.config import Settings
from bastide.model.errors import BastideError, HostError, InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from bastide.engine.engine import Engine

CONFIG = Path("/etc/bastide/config.toml")
_LISTEN_START = 3
"""First descriptor of socket activation (sd_listen_fds(3))."""

log = logging.getLogger("bastide")


def parse(argv: Sequence[str]) -> Settings:
    """The settings: file, then environment (`BASTIDE_DATA_ROOT=…`), then flags. Raises InvalidArgument."""
    parser = argparse.ArgumentParser(
        prog="bastided",
        description="The bastide daemon: containers and virtual machines behind one API.",
        epilog="Any setting may be given as --set NAME=VALUE, as BASTIDE_NAME in the environment or in the file.",
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings file (TOML); %(default)s")
    parser.add_argument("--data-root", help="what must survive a reboot; /var/lib/bastide")
    parser.add_argument("--run-root", help="sockets and runtime state; /run/bastide")
    parser.add_argument("--debug", action="store_true", help="log every request")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one setting; repeatable")
    options = parser.parse_args(argv)
    values: dict[str, Any] = {}
    if options.config.exists():
        try:
            values |= tomllib.loads(options.config.read_text())
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"settings file {options.config}: {error}") from error
    known = Settings.__struct_fields__
    values |= {name: os.environ[f"BASTIDE_{name.upper()}"] for name in known if f"BASTIDE_{name.upper()}" in os.environ}
    values |= {name: value for name in ("data_root", "run_root") if (value := getattr(options, name))}
    for entry in options.set:
        name, equals, value = entry.partition("=")
        if not equals or name not in known:
            raise InvalidArgument(f"--set {entry}: the settings are {', '.join(known)}")
        values[name] = value
    if isinstance(pools := values.get("address_pools"), str):
        values["address_pools"] = pools.split(",")
    if options.debug:
        values["debug"] = True
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"settings: {error}") from error


def _decode(kind: type, value: Any) -> Any:
    """What msgspec does not know by itself: paths."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")


def listening_socket(settings: Settings) -> socket.socket:
    """The API's socket: systemd's when it gave one, else our own, root and the group alone may use it.

    Raises HostError.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and int(os.environ.get("LISTEN_FDS", "0")) >= 1:
        given = socket.socket(fileno=_LISTEN_START)
        given.set_inheritable(False)
        return given
    path = settings.socket
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            made.bind(os.fspath(path))
        finally:
            os.umask(before)
        with contextlib.suppress(KeyError):
            os.chown(path, 0, grp.getgrnam(settings.socket_group).gr_gid)
            path.chmod(0o660)
        made.listen(1024)
    except OSError as error:
        made.close()
        raise HostError("bind", error.errno or 0, path) from error
    return made


def notify(message: str) -> None:
    """Tell systemd (sd_notify(3)), when it wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(message.encode())


async def serve(settings: Settings, read: Callable[[], Settings]) -> None:
    """Run the daemon until SIGTERM or SIGINT; on SIGHUP `read` the settings again. Containers and VMs go on."""
    from bastide.api.server import Server
    from bastide.engine.engine import Engine

    stop, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    engine = Engine(settings)
    try:
        await engine.open()
        server = Server(engine, settings)
        await server.start([listening_socket(settings)])
        try:
            notify("READY=1")
            log.info("listening on %s", settings.socket)
            rereading = asyncio.create_task(_reread(engine, hangup, read))
            await stop.wait()
            rereading.cancel()
            notify("STOPPING=1")
        finally:
            await server.stop()
    finally:
        await engine.close()


async def _reread(engine: Engine, hangup: asyncio.Event, read: Callable[[], Settings]) -> None:
    while await hangup.wait():
        hangup.clear()
        try:
            settings = read()
        except BastideError as error:
            log.error("the settings stay as they are: %s", error.message)
            continue
        fixed = await engine.reload(settings)
        logging.getLogger().setLevel(_level(engine.settings))
        log.info("settings read again%s", f"; restart the daemon for {', '.join(fixed)}" if fixed else "")


def _level(settings: Settings) -> int:
    return logging.DEBUG if settings.debug else logging.INFO


def _prepare_host(settings: Settings) -> None:
    if os.geteuid() != 0:
        raise PermissionDenied("the daemon must run as root: use sudo bastided")
    for folder, mode in ((settings.run_root, 0o711), (settings.data_root, 0o711)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        except OSError as error:
            raise HostError("mkdir", error.errno or 0, folder) from error
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o022)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `bastided` and of `bastide daemon`; gives the exit status."""
    try:
        words = sys.argv[1:] if argv is None else argv
        settings = parse(words)
        logging.basicConfig(
            level=_level(settings),
            format="%(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        # A client that goes away is no error, and every other one is logged by the API itself.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        _prepare_host(settings)
        asyncio.run(serve(settings, lambda: parse(words)))
    except BastideError as error:
        sys.stderr.write(f"bastided: {error.message}\n")
        return 125
    return 0


if __name__ == "__main__":
    sys.exit(main())

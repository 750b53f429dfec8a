"""/etc/hosts and /etc/resolv.conf: the host's, read; a container's, written."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from bastide.model.errors import InvalidArgument
from bastide.model.process import Struct

HOST_FILE = Path("/etc/resolv.conf")
BEHIND_STUB = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved writes the servers that its stub on 127.0.0.53 asks."""

# Docker's, so that what reads the file finds what it expects.
_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


class Resolv(Struct, frozen=True, kw_only=True):
    """The contents of a resolv.conf (resolv.conf(5))."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> Resolv:
    """Read a resolv.conf; what is not understood is passed over, as the C library does."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", server, *_] if _is_address(server):
                servers.append(server)
            case ["search" | "domain", *names]:
                search = tuple(names)
            case ["options", *given]:
                options += tuple(given)
    return Resolv(servers=tuple(servers), search=search, options=options)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


class HostResolv:
    """The host's resolver configuration, read again when its file has changed."""

    def __init__(self, path: Path = HOST_FILE) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._known = Resolv()

    def read(self) -> Resolv:
        """What it says now; empty when there is none."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._known = parse(self._path.read_text(errors="replace"))
                self._seen = seen
        except OSError:
            self._known, self._seen = Resolv(), None
        return self._known

    def servers(self) -> tuple[str, ...]:
        """The servers that this host asks (a stub on loopback included: the daemon can reach it)."""
        return self.read().servers[:3]

    def reachable(self) -> tuple[str, ...]:
        """The servers that somebody without this host's loopback can ask."""
        found = _off_loopback(self.read().servers)
        if not found and BEHIND_STUB.exists():
            found = _off_loopback(parse(BEHIND_STUB.read_text(errors="replace")).servers)
        return found


def _off_loopback(servers: Sequence[str]) -> tuple[str, ...]:
    return tuple(server for server in servers if not ipaddress.ip_address(server.partition("%")[0]).is_loopback)


def resolv_conf(
    servers: Sequence[str], search: Sequence[str] | None, options: Sequence[str] | None, host: Resolv
) -> str:
    """A container's /etc/resolv.conf; search domains and options that are None are the host's.

    A search domain "." asks for none at all, as in Docker.
    """
    domains = list(host.search if search is None else search)
    lines = [f"nameserver {server}" for server in servers]
    if domains and domains != ["."]:
        lines.append("search " + " ".join(domains))
    if given := list(host.options if options is None else options):
        lines.append("options " + " ".join(given))
    return "".join(f"{line}\n" for line in ["# Written by bastide.", *lines])


def hosts_file(hostname: str, domain: str, addresses: Sequence[str], extra: Sequence[tuple[str, str]]) -> str:
    """A container's /etc/hosts: Docker's beginning, `extra` (name, address) lines, then itself.

    `addresses` are without prefix length.
    """
    own = f"{hostname}.{domain} {hostname}" if domain else hostname
    lines = [f"{address}\t{name}\n" for name, address in extra]
    lines += [f"{address}\t{own}\n" for address in dict.fromkeys(addresses)]
    return _HOSTS + "".join(lines)


def extra_host(entry: str, gateway: str) -> tuple[str, str]:
    """`name:address` or `name=address` as (name, address); `host-gateway` is `gateway`.

    Raises InvalidArgument in Docker's words.
    """
    name, separator, given = entry.partition("=" if "=" in entry.partition(":")[0] else ":")
    if not separator or not name or any(c.isspace() or not c.isprintable() or c == "#" for c in entry):
        raise InvalidArgument(f"bad format for add-host: {entry!r}")
    if given == "host-gateway":
        return name, gateway
    try:
        return name, str(ipaddress.ip_address(given.strip("[]")))
    except ValueError:
        raise InvalidArgument(f'invalid IP address in add-host: "{given}"') from None

"""Where a reference is fetched from: containers-registries.conf(5) version 2, and certs.d(5).

Mirrors, `insecure`, `blocked` and rewritten locations are honoured. Short-name aliases and search
lists are not: a short name means Docker Hub, as every Docker client takes it to mean.
"""

from __future__ import annotations

import ipaddress
import ssl
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from bastide.images.reference import DEFAULT_DOMAIN, Reference
from bastide.model.errors import InvalidArgument, PermissionDenied

_DOCKERS_CERTIFICATES = Path("/etc/docker/certs.d")
HUB = "registry-1.docker.io"
"""The host that serves docker.io."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A repository on a server: `host` may have a port. `insecure`: any certificate, and plain HTTP."""

    host: str
    repository: str
    insecure: bool = False
    mirror: bool = False

    @property
    def address(self) -> str:
        """The host to connect to."""
        return HUB if self.host == DEFAULT_DOMAIN else self.host


def is_loopback(host: str) -> bool:
    """Whether a host is this computer, where Docker too takes plain HTTP."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


class Registries:
    """What `registries.conf` in a folder and the files in its `.d` say, and the certificates in `certs.d`.

    A later file replaces entries of the same prefix.
    """

    def __init__(self, folder: Path) -> None:
        self._certificates = (folder / "certs.d", _DOCKERS_CERTIFICATES)
        self._entries: dict[str, dict[str, Any]] = {}
        configuration, drop_ins = folder / "registries.conf", folder / "registries.conf.d"
        for path in [configuration, *(sorted(drop_ins.glob("*.conf")) if drop_ins.is_dir() else [])]:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            document = tomllib.loads(path.read_text())
        except FileNotFoundError:
            return
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{path}: {error}") from error
        entries = document.get("registry", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidArgument(f"{path}: [[registry]] tables are expected")
        for entry in entries:
            prefix = str(entry.get("prefix") or entry.get("location") or "")
            if prefix:
                self._entries[prefix] = entry

    def _match(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """The entry with the longest prefix of a repository's full name."""
        best: tuple[str, dict[str, Any]] | None = None
        for prefix, entry in self._entries.items():
            if prefix.startswith("*."):
                host = name.partition("/")[0]
                fits = host.endswith(prefix[1:])
                length = len(prefix)
            else:
                fits = name == prefix or name.startswith((prefix + "/", prefix + ":"))
                length = len(prefix)
            if fits and (best is None or length > len(best[0])):
                best = (prefix, entry)
        return best

    def endpoints(self, reference: Reference, *, push: bool = False) -> list[Endpoint]:
        """Where to try, in order: mirrors first, then the registry itself. Raises PermissionDenied when blocked."""
        found = self._match(reference.name)
        if found is None:
            return [_endpoint(reference.name, False, False)]
        prefix, entry = found
        if entry.get("blocked"):
            raise PermissionDenied(f"registry {prefix} is blocked in registries.conf")
        places = []
        for mirror in entry.get("mirror", []) if not push else []:
            which = mirror.get("pull-from-mirror", "digest-only" if entry.get("mirror-by-digest-only") else "all")
            if which == "all" or which == ("digest-only" if reference.digest else "tag-only"):
                name = _moved(reference.name, prefix, str(mirror.get("location", "")))
                places.append(_endpoint(name, bool(mirror.get("insecure")), True))
        own = _moved(reference.name, prefix, str(entry.get("location", "")))
        return [*places, _endpoint(own, bool(entry.get("insecure")), False)]

    def tls(self, host: str, insecure: bool) -> ssl.SSLContext:
        """The TLS context for a host: the system's authorities and its directory in certs.d. Raises InvalidArgument."""
        if insecure:
            # No list of authorities: reading it takes 40 ms, and nothing would be held against it.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context()
        for folder in (place / host for place in self._certificates):
            if not folder.is_dir():
                continue
            try:
                for path in sorted(folder.glob("*.crt")):
                    context.load_verify_locations(path)
                for path in sorted(folder.glob("*.cert")):
                    context.load_cert_chain(path, path.with_suffix(".key"))
            except (OSError, ssl.SSLError) as error:
                raise InvalidArgument(f"certificates in {folder} cannot be used: {error}") from error
        return context


def _moved(name: str, prefix: str, location: str) -> str:
    if not location or prefix.startswith("*."):
        return name
    return location + name[len(prefix) :]


def _endpoint(name: str, insecure: bool, mirror: bool) -> Endpoint:
    host, _, repository = name.partition("/")
    return Endpoint(host=host, repository=repository, insecure=insecure or is_loopback(host), mirror=mirror)

"""Credentials for registries: files and helpers as docker and podman keep them, challenges and tokens.

Files: containers-auth.json(5); helpers: github.com/docker/docker-credential-helpers; tokens: the
distribution project's token specification.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bastide.host.syscalls import run
from bastide.images.decoding import decode
from bastide.model.errors import InvalidArgument, PermissionDenied, Unauthorized

_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*,?\s*')
_SCHEME = re.compile(r"\s*(Basic|Bearer)\s+(?=[A-Za-z_-]+\s*=)", re.IGNORECASE)
_FILE_LIMIT = 4 << 20


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What Docker calls an AuthConfig. Its text form shows no secret."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, serveraddress={self.serveraddress!r})"

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.username or self.auth or self.identitytoken or self.registrytoken)

    def unpacked(self) -> Credentials:
        """With name and password taken out of `auth`. Raises InvalidArgument."""
        if self.username or not self.auth:
            return self
        try:
            name, _, password = base64.b64decode(self.auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise InvalidArgument("registry credentials are not valid base64") from None
        return msgspec.structs.replace(self, username=name, password=password.rstrip("\0"), auth="")

    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class _File(msgspec.Struct, frozen=True):
    """The part of a docker `config.json` that is about credentials."""

    auths: dict[str, Credentials] | None = None
    helpers: dict[str, str] | None = msgspec.field(name="credHelpers", default=None)
    store: str | None = msgspec.field(name="credsStore", default=None)


class _Answer(msgspec.Struct, frozen=True):
    """What a credential helper says."""

    username: str = msgspec.field(name="Username", default="")
    secret: str = msgspec.field(name="Secret", default="")


def files() -> list[Path]:
    """Where credentials may be, the first one first."""
    environment = os.environ
    if named := environment.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    found = []
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime, "containers", "auth.json"))
    if home := environment.get("HOME"):
        configuration = Path(environment.get("XDG_CONFIG_HOME") or Path(home, ".config"))
        found.append(configuration / "containers" / "auth.json")
        found.append(Path(environment.get("DOCKER_CONFIG") or Path(home, ".docker"), "config.json"))
    return found


def _keys(host: str, repository: str) -> Iterator[str]:
    """Under which names credentials may be kept, the narrowest first."""
    path = f"{host}/{repository}"
    while "/" in path:
        yield path
        path = path.rpartition("/")[0]
    yield host
    yield from (f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/")
    if host == "docker.io":
        yield from (_HUB_KEY, "index.docker.io", "registry-1.docker.io")


async def find(host: str, repository: str, places: list[Path] | None = None) -> Credentials | None:
    """The daemon's own credentials for a repository. Raises InvalidArgument for a file that cannot be read."""
    for path in files() if places is None else places:
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        content = decode(data[:_FILE_LIMIT], _File, str(path))
        if found := await _look_up(content, host, repository):
            return found
    return None


async def _look_up(content: _File, host: str, repository: str) -> Credentials | None:
    server = _HUB_KEY if host == "docker.io" else host
    helper = (content.helpers or {}).get(host) or (content.helpers or {}).get(server) or content.store
    if helper and (found := await _ask(helper, server)):
        return found
    for key in _keys(host, repository):
        entry = (content.auths or {}).get(key)
        if entry is not None and not entry.empty:
            return entry.unpacked()
    return None


async def _ask(helper: str, server: str) -> Credentials | None:
    if not _HELPER.fullmatch(helper):
        raise InvalidArgument(f"invalid name of a credential helper: {helper!r}")
    done = await run([f"docker-credential-{helper}", "get"], stdin=server.encode(), timeout=30)
    if done.code:
        return None
    answer = decode(done.stdout, _Answer, f"docker-credential-{helper} gave no valid answer")
    if answer.username == _TOKEN_USER:
        return Credentials(identitytoken=answer.secret)
    return Credentials(username=answer.username, password=answer.secret)


class Challenge(msgspec.Struct, frozen=True):
    """One challenge of a `WWW-Authenticate` header; the scheme is in lower case."""

    scheme: str
    parameters: dict[str, str]


def challenges(headers: list[str]) -> list[Challenge]:
    """The challenges that we can answer (RFC 9110, 11.6.1)."""
    found = []
    for text in headers:
        starts = [*_SCHEME.finditer(text[:8192])]
        for number, start in enumerate(starts):
            end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
            parameters = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
                for name, quoted, plain in _PARAMETER.findall(text[start.end() : end])
            }
            found.append(Challenge(start[1].lower(), parameters))
    return found


def check_realm(realm: str, registry: str, *, plain: bool) -> str:
    """The URL of a token server that a registry named, when it may be trusted with credentials.

    `plain`: the registry itself was reached by HTTP. Raises PermissionDenied for a downgrade to HTTP
    and for an address inside the host's own networks that is not the registry's.
    """
    parts = urlsplit(realm)
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host or parts.username is not None or parts.fragment:
        raise PermissionDenied(f"registry {registry} names an invalid token server: {realm[:200]!r}")
    if parts.scheme == "http" and not plain:
        raise PermissionDenied(f"registry {registry} wants credentials sent without TLS, to {realm[:200]!r}: refused")
    own = urlsplit(f"//{registry}").hostname or ""
    if host != own and _is_internal(host) and not _is_internal(own):
        raise PermissionDenied(f"registry {registry} names a token server inside this network, {host}: refused")
    return realm


def _is_internal(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


class Token(msgspec.Struct, frozen=True):
    """What a token server answers; both names are in use."""

    token: str = ""
    access_token: str = ""
    refresh_token: str = ""

    @property
    def value(self) -> str:
        """The bearer token. Raises Unauthorized when it is missing or unfit for a header."""
        found = self.token or self.access_token
        if not found or not found.isascii() or not found.isprintable():
            raise Unauthorized("token server gave no usable token")
        return found

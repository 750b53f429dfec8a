"""Where the daemon is, and how a socket to it is opened: unix, tcp (TLS or plain) and ssh."""

from __future__ import annotations

import posix
import sys
from _socket import AF_UNIX, SOCK_STREAM, socket

from bastide.model.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from bastide.client.http import Socket

_RUN_ROOT = "/run/bastide"
DEFAULT = f"unix://{_RUN_ROOT}/bastide.sock"
_PORT, _TLS_PORT = 2375, 2376


class Unreachable(Unavailable):
    """No daemon answers at the endpoint. `errno` is the system's reason, 0 when there is none."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class TLS:
    """How to prove who is who over TCP: files in PEM. `verify`: the server's name and chain are checked."""

    __slots__ = ("authority", "certificate", "key", "verify")

    def __init__(self, authority: str, certificate: str, key: str, verify: bool) -> None:
        self.authority, self.certificate, self.key, self.verify = authority, certificate, key, verify


class Endpoint:
    """An address of the daemon: `unix:///path`, `tcp://host[:port]` or `ssh://[user@]host[:port][/path]`.

    `given` tells whether the user named it (then the command line never starts a daemon of its own).
    """

    def __init__(self, url: str = DEFAULT, tls: TLS | None = None, given: bool = True) -> None:
        scheme, mark, address = url.partition("://")
        if not mark:
            scheme, address = ("unix", url) if url.startswith("/") else ("tcp", url)
        if scheme not in ("unix", "tcp", "ssh") or not address:
            raise InvalidArgument(f"unable to parse docker host `{url}`: use unix://, tcp:// or ssh://")
        self.url, self.scheme, self.address = f"{scheme}://{address}", scheme, address
        self.tls, self.given = tls, given

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Endpoint:
        """BASTIDE_HOST, else DOCKER_HOST, else the default; TLS by DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."""
        url = environment.get("BASTIDE_HOST") or environment.get("DOCKER_HOST")
        if not url:
            # The same setting moves the daemon's socket, see model.config.
            return cls(f"unix://{environment.get('BASTIDE_RUN_ROOT') or _RUN_ROOT}/bastide.sock", None, given=False)
        verify = bool(environment.get("DOCKER_TLS_VERIFY"))
        if not verify and not environment.get("DOCKER_TLS"):
            return cls(url)
        folder = environment.get("DOCKER_CERT_PATH") or configuration(environment)
        return cls(url, TLS(f"{folder}/ca.pem", f"{folder}/cert.pem", f"{folder}/key.pem", verify))

    def connect(self) -> Socket:
        """Open a connection. Raises Unreachable."""
        if self.scheme != "unix":
            from bastide.client import remote

            return remote.connect(self)
        stream = socket(AF_UNIX, SOCK_STREAM)
        try:
            stream.connect(self.address)
        except OSError as error:
            stream.close()
            raise Unreachable(
                f"Cannot connect to the bastide daemon at {self.url}: {error.strerror}. Is it running?",
                error.errno or 0,
            ) from error
        return stream


def environment() -> Mapping[str, str]:
    """This process's environment: `os.environ` where `os` is there already, for its import takes 1 ms."""
    loaded = sys.modules.get("os")
    if loaded is not None:
        known: Mapping[str, str] = loaded.environ
        return known
    pairs = posix.environ.items()
    return {name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape") for name, value in pairs}


def configuration(environment: Mapping[str, str]) -> str:
    """The folder of the client's configuration: DOCKER_CONFIG, else `~/.docker`."""
    import os

    return environment.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")

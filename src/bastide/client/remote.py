"""Connections that leave the host: TCP, TLS and ssh. Imported only when one is asked for."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess

from bastide.client.endpoint import _PORT, _TLS_PORT, TLS, Endpoint, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client.http import Socket

_TIMEOUT = 30.0


def connect(endpoint: Endpoint) -> Socket:
    """Open a connection to a `tcp` or `ssh` endpoint. Raises Unreachable."""
    try:
        return _ssh(endpoint) if endpoint.scheme == "ssh" else _tcp(endpoint)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unreachable(
            f"Cannot connect to the bastide daemon at {endpoint.url}: {reason}. Is it running?",
            error.errno or 0,
        ) from error


def _tcp(endpoint: Endpoint) -> Socket:
    host, port = split_address(endpoint.address, _TLS_PORT if endpoint.tls else _PORT)
    plain = socket.create_connection((host, port), _TIMEOUT)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.settimeout(None)
    if endpoint.tls is None:
        return plain
    return Encrypted(_context(endpoint.tls).wrap_socket(plain, server_hostname=host))


class Encrypted:
    """A TLS connection with a plain socket's manners: `send` may be asked not to wait."""

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream = stream
        self.sendall = stream.sendall
        self.shutdown = stream.shutdown
        self.close = stream.close
        self.fileno = stream.fileno
        self.pending = stream.pending

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive; peeking is refused (ValueError)."""
        return self._stream.recv(size, flags)

    def send(self, data: bytes, flags: int = 0, /) -> int:
        """Send; with flags, raise BlockingIOError rather than wait."""
        if not flags:
            return self._stream.send(data)
        self._stream.setblocking(False)
        try:
            return self._stream.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None
        finally:
            self._stream.setblocking(True)


def split_address(address: str, port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[v6]:port` (a path after it is ignored) as host and port."""
    address = address.split("/", 1)[0]
    host, mark, digits = address.rpartition(":")
    if not mark or host.endswith(":") or digits.endswith("]"):
        return address.strip("[]"), port
    if not digits.isdecimal():
        raise Unreachable(f"unable to parse docker host `tcp://{address}`: the port is not a number")
    return host.strip("[]") or "localhost", int(digits)


def _context(tls: TLS) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.authority if os.path.exists(tls.authority) else None)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if os.path.exists(tls.certificate):
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise Unreachable(f"could not read the TLS files beside {tls.authority}: {error}") from error
    return context


def _ssh(endpoint: Endpoint) -> Socket:
    """A socket whose other end is `bastide system dial-stdio` on the far host."""
    target, _, path = endpoint.address.partition("/")
    user, _, place = target.rpartition("@")
    host, port = split_address(place, 0)
    command = ["ssh", "-o", "ConnectTimeout=30", "-T"]
    command += ["-l", user] if user else []
    command += ["-p", str(port)] if port else []
    command += ["--", host, "bastide"]
    command += ["--host", f"unix:///{path}"] if path else []
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen([*command, "system", "dial-stdio"], stdin=theirs.fileno(), stdout=theirs.fileno())
    return ours

"""Published ports: the host's side is held by a socket, so that a taken port is found out and stays ours.

The kernel forwards (see `firewall`); what it cannot forward goes through a proxy in the daemon: from
`::1`, and from one IP family to the other. A held TCP socket listens, but nobody gets to it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from bastide.model.errors import Conflict, HostError, InvalidArgument, ResourceExhausted, Unsupported
from bastide.network import Port
from bastide.network.ipam import Address

log = logging.getLogger("bastide.network")

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LOCAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_CONNECTIONS = 1024
"""How many connections, or UDP clients, of one port are proxied at a time."""
_CONNECT_SECONDS, _UDP_IDLE_SECONDS = 10.0, 90.0
_CHUNK = 64 << 10


def has_ipv6() -> bool:
    """Whether the host speaks IPv6 at all."""
    return Path("/proc/net/if_inet6").exists() and bool(Path("/proc/net/if_inet6").read_bytes())


def expand(port: Port, default_ip: str = "") -> list[Port]:
    """A port on every address that it is asked for: "" is `default_ip`, else all of IPv4 and IPv6.

    Raises InvalidArgument (no address), Unsupported (protocol).
    """
    if port.protocol not in _KINDS:
        raise Unsupported(f"publishing {port.protocol} ports is not supported: only tcp and udp are")
    asked = port.host_ip or default_ip
    if not asked:
        every = ["0.0.0.0", "::"] if has_ipv6() else ["0.0.0.0"]
    else:
        try:
            every = [str(ipaddress.ip_address(asked.strip("[]")))]
        except ValueError:
            raise InvalidArgument(f"invalid IP address for a published port: {asked}") from None
    return [msgspec.structs.replace(port, host_ip=each) for each in every]


def hold(port: Port) -> socket.socket:
    """A socket that has the port. Raises Conflict in Docker's words, InvalidArgument (no such address)."""
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    held = socket.socket(family, _KINDS[port.protocol] | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    where = f"[{port.host_ip}]" if family == socket.AF_INET6 else port.host_ip
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.protocol == "tcp":
            # A port with connections in TIME_WAIT is free; one that somebody listens on is not.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((port.host_ip, port.host_port))
        if port.protocol == "tcp":
            held.listen(128)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"Bind for {where}:{port.host_port} failed: port is already allocated") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidArgument(
                f"Bind for {where}:{port.host_port} failed: cannot assign requested address"
            ) from error
        raise HostError("bind", error.errno or errno.EIO, f"{where}:{port.host_port}") from error
    return held


class Holder:
    """All ports that one driver holds."""

    def __init__(self) -> None:
        self._held: dict[Port, Held] = {}
        self._next = 0

    def hold(self, groups: Sequence[Sequence[Port]]) -> list[Port]:
        """Take every port, all or none; gives them with their numbers.

        The ports of a group are one port on several addresses and get the same number.
        """
        got: list[Port] = []
        try:
            for group in groups:
                got += self._hold_group(group)
        except BaseException:
            self.release(got)
            raise
        return got

    def _hold_group(self, group: Sequence[Port]) -> list[Port]:
        first = group[0]
        if first.host_port and not first.host_port_end:
            return self._hold_number(group, first.host_port)
        if first.host_port_end:
            candidates = list(range(first.host_port, first.host_port_end + 1))
        else:
            low, high = map(int, _LOCAL_RANGE.read_text().split())
            start = self._next if low <= self._next <= high else low
            candidates = [*range(start, high + 1), *range(low, start)]
        for number in candidates:
            with suppress(Conflict):
                got = self._hold_number(group, number)
                if not first.host_port_end:
                    self._next = number + 1
                return got
        if first.host_port_end:
            raise Conflict(
                f"Bind for {first.host_ip}:{first.host_port}-{first.host_port_end} failed: all ports are allocated"
            )
        raise ResourceExhausted("all ephemeral ports are allocated")

    def _hold_number(self, group: Sequence[Port], number: int) -> list[Port]:
        got: list[Port] = []
        try:
            for port in group:
                numbered = msgspec.structs.replace(port, host_port=number, host_port_end=0)
                self._held[numbered] = Held(hold(numbered))
                got.append(numbered)
        except BaseException:
            self.release(got)
            raise
        return got

    def take_up(self, port: Port) -> None:
        """Hold a port that is forwarded already; should somebody have it meanwhile, only that is logged."""
        if port in self._held:
            return
        try:
            self._held[port] = Held(hold(port))
        except (Conflict, InvalidArgument, HostError) as error:
            log.warning("published port is taken by another program: %s", error.message)

    async def proxy(self, port: Port, target: Address) -> None:
        """Carry what arrives at the held port to the container's port at `target`."""
        if held := self._held.get(port):
            await held.serve(port.protocol, str(target), port.container_port)

    def release(self, ports: Sequence[Port]) -> None:
        """Let go of ports; of no effect on those that are not held."""
        for port in ports:
            if held := self._held.pop(port, None):
                held.close()

    def close(self) -> None:
        """Let go of everything."""
        self.release(list(self._held))


class Held:
    """A port's socket, and its proxy if there is one."""

    def __init__(self, held: socket.socket) -> None:
        self._socket = held
        self._close: Callable[[], None] = held.close

    async def serve(self, protocol: str, host: str, port: int) -> None:
        """Begin to proxy."""
        if protocol == "tcp":
            connections = Connections(host, port)
            server = await asyncio.start_server(connections.serve, sock=self._socket, limit=_CHUNK)
            self._close = functools.partial(_close_server, server, connections)
        else:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(host, port), sock=self._socket)
            self._close = transport.close

    def close(self) -> None:
        """End it and let go of the port."""
        self._close()


def _close_server(server: asyncio.Server, connections: Connections) -> None:
    server.close()
    connections.close()


class Connections:
    """The connections of one proxied TCP port."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until both sides have ended."""
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= _CONNECTIONS:
            _reset(writer)
            return
        self._tasks.add(task)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                inner_reader, inner_writer = await asyncio.open_connection(self._host, self._port, limit=_CHUNK)
        except (OSError, TimeoutError):
            _reset(writer)
            self._tasks.discard(task)
            return
        try:
            await asyncio.gather(_carry(reader, inner_writer), _carry(inner_reader, writer))
        except OSError:
            _reset(writer)
            _reset(inner_writer)
        finally:
            writer.close()
            inner_writer.close()
            self._tasks.discard(task)

    def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the client is told that something went wrong."""
    channel = writer.get_extra_info("socket")
    if channel is not None:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class Datagrams(asyncio.DatagramProtocol):
    """A proxied UDP port: a socket of its own towards the container for each client."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._clients: dict[tuple[str, int], Client] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The port is served."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A client sent something."""
        client = self._clients.get(addr)
        if client is None:
            if len(self._clients) >= _CONNECTIONS:
                return
            client = self._clients[addr] = Client(self, addr)
            client.task = asyncio.ensure_future(client.connect(self._host, self._port))
        client.send(data)

    def answer(self, data: bytes, addr: tuple[str, int]) -> None:
        """The container answered a client."""
        if self._transport is not None:
            self._transport.sendto(data, addr)

    def forget(self, addr: tuple[str, int]) -> None:
        """A client has been silent for long."""
        self._clients.pop(addr, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The port is served no more."""
        self._transport = None
        for client in list(self._clients.values()):
            client.end()


class Client(asyncio.DatagramProtocol):
    """One client of a proxied UDP port."""

    def __init__(self, owner: Datagrams, addr: tuple[str, int]) -> None:
        self._owner, self._addr = owner, addr
        self._waiting: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Future[None] | None = None

    async def connect(self, host: str, port: int) -> None:
        """Open the socket towards the container and send what waits."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: self, remote_addr=(host, port))
        except OSError:
            self.end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        for data in self._waiting:
            self._transport.sendto(data)
        self._waiting.clear()
        self._touch()

    def send(self, data: bytes) -> None:
        """Send to the container."""
        if self._transport is not None:
            self._transport.sendto(data)
            self._touch()
        elif len(self._waiting) < 64:
            self._waiting.append(data)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """The container sent something."""
        self._owner.answer(data, self._addr)
        self._touch()

    def _touch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_UDP_IDLE_SECONDS, self.end)

    def end(self) -> None:
        """Forget the client."""
        self._owner.forget(self._addr)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

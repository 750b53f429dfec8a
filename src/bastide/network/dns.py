"""The resolver on each bridge's gateway: containers' names from the directory, the rest from the host's servers.

It answers whoever is on the network: names and reverse names of containers, and, unless every network
of the asker is internal, what the host's resolvers say. Wire format: dnspython (RFC 1035, RFC 6891).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, cast

from bastide.model.errors import HostError
from bastide.network.ipam import Address, Subnet
from bastide.network.names import Directory, Resident, reverse_address

if TYPE_CHECKING:
    import dns.message

log = logging.getLogger("bastide.network")

PORT = 53
"""Where other resolvers are asked."""
TTL = 30
"""Seconds that a container's name may be remembered; short, for addresses change hands."""
_IN_FLIGHT, _IN_FLIGHT_EACH = 512, 64
"""Questions passed on at a time, in all and for one asker."""
_SECONDS = 3.0
"""How long one upstream server may take."""
_TCP_IDLE, _TCP_CONNECTIONS = 10.0, 128
_FIRST_PORT, _PORTS = 20000, 10000
_UDP_LIMIT = 1232
"""Bytes of an answer over UDP to somebody who names no limit above it (DNS flag day 2020)."""


class Service:
    """The resolver of one network."""

    def __init__(
        self, network: str, nets: Sequence[Subnet], internal: bool, directory: Directory, upstream: Upstream
    ) -> None:
        self._network, self._nets, self._internal = network, list(nets), internal
        self._directory, self._upstream = directory, upstream
        self._closers: list[Callable[[], None]] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, gateway: Address) -> int:
        """Serve on a port of the gateway's address and give it; the same one each time, if it is free.

        Raises HostError.
        """
        preferred = _FIRST_PORT + zlib.crc32(f"{gateway}".encode()) % _PORTS
        for port in (preferred, 0):
            try:
                datagrams, stream = _sockets(gateway, port)
                break
            except OSError as error:
                if not port:
                    raise HostError("bind", error.errno or 0, str(gateway)) from error
        chosen: int = stream.getsockname()[1]
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._answer_datagram), sock=datagrams)
        server = await asyncio.start_server(self._serve_stream, sock=stream)
        self._closers += [transport.close, server.close]
        return chosen

    def close(self) -> None:
        """Stop serving."""
        for close in self._closers:
            close()
        for task in list(self._connections):
            task.cancel()

    async def _answer_datagram(self, wire: bytes, source: str) -> bytes | None:
        return await self.answer(wire, source, stream=False)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _TCP_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            source = writer.get_extra_info("peername")[0]
            while True:
                async with asyncio.timeout(_TCP_IDLE):
                    size = struct.unpack("!H", await reader.readexactly(2))[0]
                    wire = await reader.readexactly(size)
                reply = await self.answer(wire, source, stream=True)
                if reply is None:
                    break
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def answer(self, wire: bytes, source: str, *, stream: bool) -> bytes | None:
        """The answer to a question from the address `source`; None when none is due."""
        import dns.exception
        import dns.message
        import dns.rcode
        import dns.rdatatype

        sender = ipaddress.ip_address(source.partition("%")[0])
        if not any(sender.version == net.version and sender in net for net in self._nets):
            return None
        try:
            query = dns.message.from_wire(wire, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError, struct.error):
            return None
        if query.flags & 0x8000:
            return None
        if query.opcode() != 0 or len(query.question) != 1 or query.question[0].rdclass != 1:
            return _plain(query, dns.rcode.NOTIMP)
        asker = self._directory.asker(self._network, sender)
        known = self._local(query, asker)
        if known is not None:
            limit = 65535 if stream else max(512, min(query.payload or 512, _UDP_LIMIT))
            return _within(known, limit)
        if query.question[0].rdtype in (dns.rdatatype.ANY, dns.rdatatype.AXFR, dns.rdatatype.IXFR):
            return _plain(query, dns.rcode.REFUSED)
        if not self._may_forward(asker):
            return _plain(query, dns.rcode.NXDOMAIN)
        reply = await self._upstream.ask(wire, asker.servers if asker else (), str(sender), stream=stream)
        return reply if reply is not None else _plain(query, dns.rcode.SERVFAIL)

    def _may_forward(self, asker: Resident | None) -> bool:
        if asker is None:
            return not self._internal
        return any(not place.internal for place in asker.places)

    def _local(self, query: dns.message.Message, asker: Resident | None) -> dns.message.Message | None:
        """The answer from the directory; None when it is for somebody else to answer."""
        import dns.flags
        import dns.message
        import dns.rdatatype
        import dns.rrset

        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), question.rdtype
        values: list[str] = []
        if kind == dns.rdatatype.PTR and (own := reverse_address(name)) is not None:
            found = self._directory.name_of(asker, self._network, own)
            if found is None:
                return None
            values = [f"{found}."]
        else:
            addresses = self._directory.find(asker, self._network, name)
            if addresses is None:
                return None
            version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(kind)
            values = [str(own) for own in addresses if own.version == version]
        reply = dns.message.make_response(query, recursion_available=True)
        reply.flags |= dns.flags.AA
        if values:
            reply.answer.append(dns.rrset.from_text_list(question.name, TTL, question.rdclass, kind, values))
        return reply


def _sockets(gateway: Address, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port of an address."""
    family = socket.AF_INET6 if gateway.version == 6 else socket.AF_INET
    stream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    datagrams = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.bind((str(gateway), port))
        stream.listen(64)
        datagrams.bind((str(gateway), stream.getsockname()[1]))
    except OSError:
        stream.close()
        datagrams.close()
        raise
    return datagrams, stream


def _plain(query: dns.message.Message, code: int) -> bytes:
    """An answer that is only a code."""
    import dns.message

    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(code)  # type: ignore[arg-type]
    return reply.to_wire()


def _within(reply: dns.message.Message, limit: int) -> bytes:
    """The wire form, cut and marked as such when it is longer than `limit` bytes."""
    import dns.exception
    import dns.flags

    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire()


class _Datagrams(asyncio.DatagramProtocol):
    """The UDP side: a task for each question."""

    def __init__(self, answer: Callable[[bytes, str], Awaitable[bytes | None]]) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self._tasks) >= 2 * _IN_FLIGHT:
            return
        task = asyncio.ensure_future(self._reply(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            reply = await self._answer(data, addr[0])
        except Exception:
            log.exception("a question to the resolver")
            return
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for task in list(self._tasks):
            task.cancel()


class Upstream:
    """Passes questions on to other resolvers. `servers` gives the host's, each time anew."""

    def __init__(self, servers: Callable[[], Sequence[str]]) -> None:
        self._servers = servers
        self._asking: Counter[str] = Counter()

    async def ask(self, wire: bytes, servers: Sequence[str], asker: str, *, stream: bool) -> bytes | None:
        """The answer of the first server that gives one, as bytes; None when nobody does."""
        if self._asking.total() >= _IN_FLIGHT or self._asking[asker] >= _IN_FLIGHT_EACH or len(wire) < 12:
            return None
        self._asking[asker] += 1
        try:
            for server in servers or self._servers():
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(_SECONDS):
                        return await (_by_stream if stream else _by_datagram)(wire, server)
        finally:
            self._asking[asker] -= 1
            if not self._asking[asker]:
                del self._asking[asker]
        return None


def _matches(question: bytes, reply: bytes) -> bool:
    """Whether a reply has the question's number and repeats its name and type."""
    if len(reply) < 12 or reply[:2] != question[:2] or not reply[2] & 0x80:
        return False
    end = 12
    while end < len(question) and question[end]:
        end += question[end] + 1
    asked, repeated = question[12 : end + 5], reply[12 : end + 5]
    return not reply[5] or asked.lower() == repeated.lower()


class _Question(asyncio.DatagramProtocol):
    """One question over UDP, from a socket of its own (a port that nobody can guess)."""

    def __init__(self, wire: bytes) -> None:
        self._wire = secrets.token_bytes(2) + wire[2:]
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self._wire)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.reply.done() and _matches(self._wire, data):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _by_datagram(wire: bytes, server: str) -> bytes:
    loop = asyncio.get_running_loop()
    transport, asked = await loop.create_datagram_endpoint(lambda: _Question(wire), remote_addr=(server, PORT))
    try:
        return wire[:2] + (await asked.reply)[2:]
    finally:
        transport.close()


async def _by_stream(wire: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(struct.pack("!H", len(wire)) + wire)
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        reply = await reader.readexactly(size)
    finally:
        writer.close()
    if not _matches(wire, reply):
        raise OSError("an answer to another question")
    return reply

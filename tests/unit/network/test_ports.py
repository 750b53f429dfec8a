"""Holding ports and proxying what the kernel cannot forward; loopback only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from bastide.model.errors import Conflict, InvalidArgument, Unsupported
from bastide.network import Port
from bastide.network import ports as published
from bastide.network.ports import Holder, expand

LOOPBACK = ipaddress.ip_address("127.0.0.1")


def port(number: int = 0, host_ip: str = "127.0.0.1", protocol: str = "tcp", end: int = 0, inner: int = 80) -> Port:
    return Port(container_port=inner, protocol=protocol, host_ip=host_ip, host_port=number, host_port_end=end)


@pytest.fixture
async def holder() -> AsyncIterator[Holder]:
    made = Holder()
    yield made
    made.close()


def test_expand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "has_ipv6", lambda: True)
    assert [each.host_ip for each in expand(port(host_ip=""))] == ["0.0.0.0", "::"]
    assert [each.host_ip for each in expand(port(host_ip=""), "127.0.0.1")] == ["127.0.0.1"]
    assert [each.host_ip for each in expand(port(host_ip="[::1]"))] == ["::1"]
    monkeypatch.setattr(published, "has_ipv6", lambda: False)
    assert [each.host_ip for each in expand(port(host_ip=""))] == ["0.0.0.0"]
    with pytest.raises(InvalidArgument):
        expand(port(host_ip="everywhere"))
    with pytest.raises(Unsupported, match="sctp"):
        expand(port(protocol="sctp"))


async def test_a_free_port_is_found_and_kept(holder: Holder) -> None:
    first, second = holder.hold([[port()], [port()]])
    assert first.host_port != second.host_port
    with pytest.raises(Conflict, match=f"Bind for 127.0.0.1:{first.host_port} failed: port is already allocated"):
        holder.hold([[port(first.host_port)]])
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", first.host_port))
    holder.release([first])
    holder.release([first])
    assert holder.hold([[port(first.host_port)]])[0] == first


async def test_a_group_has_one_number(holder: Holder) -> None:
    four, other = holder.hold([[port(), port(host_ip="127.0.0.2")]])
    assert four.host_port == other.host_port
    assert (four.host_ip, other.host_ip) == ("127.0.0.1", "127.0.0.2")


async def test_all_or_none(holder: Holder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        taken = busy.getsockname()[1]
        free = holder.hold([[port()]])[0]
        holder.release([free])
        with pytest.raises(Conflict):
            holder.hold([[port(free.host_port)], [port(taken)]])
    with socket.create_server(("127.0.0.1", free.host_port)):
        pass


async def test_ranges(holder: Holder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        low = busy.getsockname()[1]
        wide = port(low, end=low + 2)
        got = holder.hold([[wide]])[0]
        assert low < got.host_port <= low + 2
        assert got.host_port_end == 0
        with pytest.raises(Conflict):
            holder.hold([[wide], [wide], [wide]])


async def test_an_address_of_somebody_else(holder: Holder) -> None:
    with pytest.raises(InvalidArgument, match="cannot assign requested address"):
        holder.hold([[port(8080, "203.0.113.9")]])


async def test_taking_up_a_port_that_is_gone_is_no_error(holder: Holder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        holder.take_up(port(busy.getsockname()[1]))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read()
    writer.write(data.upper())
    writer.close()


async def test_tcp_is_carried_both_ways_with_half_closes(holder: Holder) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    inner = server.sockets[0].getsockname()[1]
    held = holder.hold([[port(host_ip="::1", inner=inner)]])[0]
    await holder.proxy(held, LOOPBACK)
    reader, writer = await asyncio.open_connection("::1", held.host_port)
    writer.write(b"a" * 300_000)
    writer.write_eof()
    assert await reader.read() == b"A" * 300_000
    writer.close()
    holder.release([held])
    with pytest.raises(OSError, match=r"[Rr]efused|Connect call failed"):
        await asyncio.open_connection("::1", held.host_port)
    server.close()


async def test_nobody_inside_ends_the_connection(holder: Holder) -> None:
    held = holder.hold([[port(host_ip="::1", inner=1)]])[0]
    await holder.proxy(held, LOOPBACK)
    reader, writer = await asyncio.open_connection("::1", held.host_port)
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()


class Shout(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data.upper() + str(addr[1]).encode(), addr)  # type: ignore[attr-defined]


async def test_udp_clients_are_kept_apart(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_CONNECTIONS", 2)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Shout, local_addr=("127.0.0.1", 0))
    inner = transport.get_extra_info("sockname")[1]
    held = holder.hold([[port(host_ip="::1", protocol="udp", inner=inner)]])[0]
    await holder.proxy(held, LOOPBACK)
    answers = []
    for _ in range(3):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("::1", held.host_port))
            for _ in range(2):
                client.send(b"hi")
                try:
                    answers.append(await asyncio.wait_for(loop.sock_recv(client, 100), 0.5))
                except TimeoutError:
                    answers.append(b"")
    assert answers[0] == answers[1] != b""
    assert answers[2] == answers[3] != answers[0]
    assert answers[4:] == [b"", b""]
    transport.close()


def test_a_port_is_a_value() -> None:
    one = port(8080)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Port) == one
    assert len({one, port(8080)}) == 1

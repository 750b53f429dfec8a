"""The resolver: what it answers itself, what it passes on, what it refuses."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from bastide.network import dns as resolver
from bastide.network.dns import Service, Upstream
from bastide.network.names import Directory, Place, Resident

NET = ipaddress.ip_network("10.0.0.0/24")
ASKER = "10.0.0.2"


def resident(
    container: str, address: str, *names: str, internal: bool = False, servers: tuple[str, ...] = ()
) -> Resident:
    place = Place(
        network="n",
        network_name="meadow",
        addresses=(ipaddress.ip_address(address), ipaddress.ip_address("fd00::" + address[-1])),
        names=names,
        internal=internal,
    )
    return Resident(container=container, places=(place,), servers=servers)


class Passed(Upstream):
    """Notes what is passed on and answers it."""

    def __init__(self) -> None:
        super().__init__(lambda: ["192.0.2.53"])
        self.questions: list[tuple[str, tuple[str, ...]]] = []

    async def ask(self, wire: bytes, servers, asker: str, *, stream: bool) -> bytes | None:  # type: ignore
        query = dns.message.from_wire(wire)
        self.questions.append((query.question[0].name.to_text(), tuple(servers)))
        if "broken" in self.questions[-1][0]:
            return None
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "93.184.216.34"))
        return reply.to_wire()


@pytest.fixture
def upstream() -> Passed:
    return Passed()


def service(upstream: Upstream, *residents: Resident, internal: bool = False) -> Service:
    directory = Directory()
    for each in residents or (resident("web", ASKER, "web"), resident("db", "10.0.0.3", "db", "store")):
        directory.put(each)
    return Service("n", [NET], internal, directory, upstream)


async def ask(made: Service, name: str, kind: str = "A", source: str = ASKER) -> dns.message.Message:
    wire = await made.answer(dns.message.make_query(name, kind).to_wire(), source, stream=False)
    assert wire is not None
    return dns.message.from_wire(wire)


def values(reply: dns.message.Message) -> list[str]:
    return [str(item) for rrset in reply.answer for item in rrset]


async def test_containers_are_answered_here(upstream: Passed) -> None:
    made = service(upstream)
    assert values(await ask(made, "db")) == ["10.0.0.3"]
    assert values(await ask(made, "STORE.meadow.")) == ["10.0.0.3"]
    assert values(await ask(made, "db", "AAAA")) == ["fd00::3"]
    assert values(await ask(made, "3.0.0.10.in-addr.arpa", "PTR")) == ["db.meadow."]
    other = await ask(made, "db", "MX")
    assert (other.rcode(), values(other)) == (dns.rcode.NOERROR, [])
    assert upstream.questions == []


async def test_the_rest_is_passed_on_with_its_own_servers(upstream: Passed) -> None:
    made = service(upstream, resident("web", ASKER, "web", servers=("9.9.9.9",)))
    assert values(await ask(made, "example.org")) == ["93.184.216.34"]
    assert values(await ask(made, "8.8.8.8.in-addr.arpa", "PTR")) == ["93.184.216.34"]
    assert upstream.questions[0] == ("example.org.", ("9.9.9.9",))
    assert (await ask(made, "broken.example")).rcode() == dns.rcode.SERVFAIL


async def test_internal_networks_pass_nothing_on(upstream: Passed) -> None:
    made = service(upstream, resident("web", ASKER, "web", internal=True), internal=True)
    assert (await ask(made, "secret.evil.example")).rcode() == dns.rcode.NXDOMAIN
    assert (await ask(made, "x.example", source="10.0.0.77")).rcode() == dns.rcode.NXDOMAIN
    assert values(await ask(made, "web")) == [ASKER]
    assert upstream.questions == []


async def test_others_get_no_answer(upstream: Passed) -> None:
    made = service(upstream)
    query = dns.message.make_query("db", "A").to_wire()
    assert await made.answer(query, "192.168.1.1", stream=False) is None
    assert await made.answer(query, "::1", stream=False) is None


@pytest.mark.parametrize(
    "wire", [b"", b"\0", b"\xff" * 12, b"\0" * 11, b"\0\1\1\0\0\1\0\0\0\0\0\0\x3f", b"\xc0\x0c" * 40]
)
async def test_broken_questions_get_none(upstream: Passed, wire: bytes) -> None:
    assert await service(upstream).answer(wire, ASKER, stream=False) is None


async def test_answers_are_not_questions(upstream: Passed) -> None:
    query = dns.message.make_query("db", "A")
    reply = dns.message.make_response(query).to_wire()
    assert await service(upstream).answer(reply, ASKER, stream=False) is None


async def test_what_is_refused(upstream: Passed) -> None:
    made = service(upstream)
    assert (await ask(made, "example.org", "ANY")).rcode() == dns.rcode.REFUSED
    assert (await ask(made, "example.org", "AXFR")).rcode() == dns.rcode.REFUSED
    chaos = dns.message.make_query("version.bind", "TXT", "CH").to_wire()
    wire = await made.answer(chaos, ASKER, stream=False)
    assert dns.message.from_wire(wire or b"").rcode() == dns.rcode.NOTIMP
    assert upstream.questions == []


async def test_long_answers_are_cut_over_udp_and_whole_over_tcp(upstream: Passed) -> None:
    many = [resident(f"c{number}", f"10.0.0.{number}", "many") for number in range(10, 100)]
    made = service(upstream, *many)
    query = dns.message.make_query("many", "A").to_wire()
    short = dns.message.from_wire(await made.answer(query, "10.0.0.1", stream=False) or b"", ignore_trailing=True)
    assert short.flags & 0x0200
    whole = dns.message.from_wire(await made.answer(query, "10.0.0.1", stream=True) or b"")
    assert len(values(whole)) == 90


class Server(asyncio.DatagramProtocol):
    """Another resolver: answers with whatever `reply` makes of the question."""

    def __init__(self, *replies: object) -> None:
        self.replies, self.asked = replies, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        for reply in self.replies:
            self.transport.sendto(reply(data), addr)  # type: ignore


@pytest.fixture
async def other(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[object]:
    """Starts a resolver on loopback that `Upstream` asks instead of port 53."""
    loop = asyncio.get_running_loop()
    transports = []

    async def start(*replies: object) -> Server:
        transport, made = await loop.create_datagram_endpoint(lambda: Server(*replies), local_addr=("127.0.0.1", 0))
        monkeypatch.setattr(resolver, "PORT", transport.get_extra_info("sockname")[1])
        transports.append(transport)
        return made

    yield start
    for transport in transports:
        transport.close()


def answered(data: bytes, number: bytes | None = None) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(data))
    reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", "192.0.2.1"))
    wire = reply.to_wire()
    return wire if number is None else number + wire[2:]


async def test_forged_answers_are_passed_over(other, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore
    def another_question(data: bytes) -> bytes:
        reply = dns.message.make_response(dns.message.make_query("bank.example", "A"))
        return data[:2] + reply.to_wire()[2:]

    await other(lambda data: answered(data, b"\0\0"), another_question, lambda data: b"short", answered)
    query = dns.message.make_query("example.org", "A")
    wire = await Upstream(lambda: ["127.0.0.1"]).ask(query.to_wire(), (), "a", stream=False)
    reply = dns.message.from_wire(wire or b"")
    assert (reply.id, values(reply)) == (query.id, ["192.0.2.1"])


async def test_the_next_server_is_asked_and_limits_hold(other, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore
    monkeypatch.setattr(resolver, "_SECONDS", 0.1)
    server = await other()
    asked = Upstream(lambda: ["127.0.0.1", "127.0.0.1"])
    query = dns.message.make_query("example.org", "A").to_wire()
    assert await asked.ask(query, (), "a", stream=False) is None
    assert server.asked == 2
    monkeypatch.setattr(resolver, "_IN_FLIGHT_EACH", 1)
    first = asyncio.ensure_future(asked.ask(query, (), "a", stream=False))
    await asyncio.sleep(0)
    assert await asked.ask(query, (), "a", stream=False) is None
    assert server.asked == 2
    await first


async def test_it_serves_udp_and_tcp(upstream: Passed) -> None:
    directory = Directory()
    directory.put(resident("db", "10.0.0.3", "db"))
    made = Service("n", [ipaddress.ip_network("127.0.0.0/8")], False, directory, upstream)
    port = await made.listen(ipaddress.ip_address("127.0.0.1"))
    query = dns.message.make_query("db", "A").to_wire()
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", port))
        client.send(b"junk")
        client.send(query)
        assert values(dns.message.from_wire(await loop.sock_recv(client, 512))) == ["10.0.0.3"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(struct.pack("!H", len(query)) + query)
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        assert values(dns.message.from_wire(await reader.readexactly(size))) == ["10.0.0.3"]
    writer.write(struct.pack("!H", 4) + b"junk")
    assert await reader.read() == b""
    writer.close()
    made.close()

from __future__ import annotations

import asyncio
import struct

import msgspec
import pytest

from bastide.api import detach
from bastide.model.container import Config, State, Status
from bastide.model.errors import InvalidArgument
from bastide.runtime import Stream

from .conftest import Api, make_container


def request(path: str, body: bytes = b"", *, upgrade: bool = True) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def interactive(api: Api, **config: bool) -> None:
    options = {"open_stdin": True, "stdin_once": True} | config
    api.engine.containers.add(make_container(config=Config(image="busybox", **options)))


async def head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)


async def frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    stream, size = struct.unpack(">BxxxL", await asyncio.wait_for(reader.readexactly(8), 5))
    return stream, await reader.readexactly(size)


ATTACH = "/containers/web/attach?stream=1&stdin=1&stdout=1&stderr=1"


@pytest.mark.parametrize(("upgrade", "status"), [(True, b"101 UPGRADED"), (False, b"200 OK")])
async def test_output_is_framed(api: Api, upgrade: bool, status: bytes) -> None:
    stdio = api.engine.containers.stdio
    reader, writer = await api.raw(request(ATTACH, upgrade=upgrade))
    answer = await head(reader)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (b"Upgrade: tcp" in answer) is upgrade
    assert b"application/vnd.docker.multiplexed-stream" in answer
    stdio.pieces.put_nowait((Stream.STDOUT, b"out"))
    stdio.pieces.put_nowait((Stream.STDERR, b"err"))
    assert await frame(reader) == (1, b"out")
    assert await frame(reader) == (2, b"err")
    stdio.pieces.put_nowait(None)
    assert await reader.read() == b""
    writer.close()
    assert stdio.closed.is_set()


async def test_old_versions_get_the_old_type(api: Api) -> None:
    reader, _ = await api.raw(request("/v1.41" + ATTACH))
    assert b"application/vnd.docker.raw-stream" in await head(reader)


async def test_a_terminal_is_raw(api: Api) -> None:
    interactive(api, tty=True)
    reader, _ = await api.raw(request(ATTACH))
    assert b"application/vnd.docker.raw-stream" in await head(reader)
    api.engine.containers.stdio.pieces.put_nowait((Stream.STDOUT, b"$ "))
    assert await reader.readexactly(2) == b"$ "


async def test_stdin_arrives_and_its_end_too(api: Api) -> None:
    interactive(api)
    stdio = api.engine.containers.stdio
    reader, writer = await api.raw(request(ATTACH))
    await head(reader)
    writer.write(b"hello")
    writer.write_eof()
    await asyncio.wait_for(stdio.stdin_closed.wait(), 5)
    assert stdio.received == b"hello"
    stdio.pieces.put_nowait((Stream.STDOUT, b"still here"))
    assert await frame(reader) == (1, b"still here")


async def test_without_stdin_once_the_end_is_the_clients_alone(api: Api) -> None:
    interactive(api, stdin_once=False)
    stdio = api.engine.containers.stdio
    reader, writer = await api.raw(request(ATTACH))
    await head(reader)
    writer.write(b"x")
    writer.write_eof()
    stdio.pieces.put_nowait((Stream.STDOUT, b"out"))
    assert await frame(reader) == (1, b"out")
    assert not stdio.stdin_closed.is_set()


@pytest.mark.parametrize("upgrade", [True, False])
async def test_bytes_sent_with_the_request_reach_stdin(api: Api, upgrade: bool) -> None:
    interactive(api)
    stdio = api.engine.containers.stdio
    reader, writer = await api.raw(request(ATTACH, upgrade=upgrade) + b"GET /x HTTP/1.1\r\n\r\n")
    writer.write_eof()
    await head(reader)
    await asyncio.wait_for(stdio.stdin_closed.wait(), 5)
    assert stdio.received == b"GET /x HTTP/1.1\r\n\r\n"


async def test_only_the_wanted_stream_is_sent(api: Api) -> None:
    stdio = api.engine.containers.stdio
    reader, _ = await api.raw(request("/containers/web/attach?stream=1&stderr=1"))
    await head(reader)
    stdio.pieces.put_nowait((Stream.STDOUT, b"no"))
    stdio.pieces.put_nowait((Stream.STDERR, b"yes"))
    assert await frame(reader) == (2, b"yes")


@pytest.mark.parametrize(("keys", "typed"), [("", b"\x10\x11"), ("ctrl-a,d", b"\x01d")])
async def test_the_detach_keys_end_the_connection_alone(api: Api, keys: str, typed: bytes) -> None:
    interactive(api, tty=True)
    stdio = api.engine.containers.stdio
    reader, writer = await api.raw(request(f"{ATTACH}&detachKeys={keys}"))
    await head(reader)
    writer.write(b"ls" + typed)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert stdio.received == b"ls"
    assert not stdio.stdin_closed.is_set()
    assert [call[0] for call in api.engine.containers.calls] == ["detached"]


async def test_a_client_that_has_gone_is_let_go(api: Api) -> None:
    stdio = api.engine.containers.stdio
    reader, writer = await api.raw(request(ATTACH))
    await head(reader)
    writer.write_eof()
    await asyncio.sleep(0.05)
    assert not stdio.closed.is_set()
    writer.close()
    await asyncio.wait_for(stdio.closed.wait(), 5)


def test_keys_that_only_begin_the_sequence_are_typed() -> None:
    detector = detach.Detector(detach.DEFAULT)
    assert detector.feed(b"\x10a") == b"\x10a"
    assert detector.feed(b"\x10") == b""
    assert detector.feed(b"\x10") == b"\x10"
    assert detector.feed(b"\x11") == b""
    assert detector.detached


@pytest.mark.parametrize("keys", ["ctrl-", "ctrl-ab", "ab", "ctrl-1", ","])
def test_unknown_keys_are_refused(keys: str) -> None:
    with pytest.raises(InvalidArgument, match="detach keys"):
        detach.parse(keys)


async def test_the_process_waits_for_a_client_that_does_not_read(api: Api) -> None:
    stdio = api.engine.containers.stdio
    reader, writer = await api.raw(request(ATTACH))
    await head(reader)
    block = b"x" * 65536
    for _ in range(400):
        stdio.pieces.put_nowait((Stream.STDOUT, block))
    stdio.pieces.put_nowait(None)
    await asyncio.sleep(0.3)
    assert stdio.pieces.qsize() > 300
    total = 0
    while data := await reader.read(1 << 20):
        total += len(data)
    assert total == 400 * (len(block) + 8)
    writer.close()


async def test_the_client_waits_for_a_process_that_does_not_read(api: Api) -> None:
    interactive(api)
    stdio = api.engine.containers.stdio
    stdio.slow = 10
    reader, writer = await api.raw(request(ATTACH))
    await head(reader)
    writer.write(b"x" * (8 << 20))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.5)


async def test_a_refused_attach_is_plain_http_and_the_connection_goes_on(api: Api) -> None:
    again = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, _ = await api.raw(request("/containers/none/attach?stream=1") + again)
    assert b" 404 " in await head(reader)
    await reader.readuntil(b"\n")
    assert b" 200 " in await head(reader)


async def exec_start(
    api: Api, config: dict[str, object], start: dict[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    status, made = await api.call("POST", "/containers/web/exec", json=config)
    assert status == 201
    return await api.raw(request(f"/exec/{made['Id']}/start", msgspec.json.encode(start)))


async def test_exec_echoes(api: Api) -> None:
    config = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    reader, writer = await exec_start(api, config, {"Detach": False, "Tty": False})
    assert b"101" in await head(reader)
    writer.write(b"abc")
    assert await frame(reader) == (1, b"abc")
    writer.write_eof()
    assert await reader.read() == b""


async def test_an_exec_that_cannot_run_tells_on_its_stream(api: Api) -> None:
    api.engine.execs.fail = InvalidArgument('exec: "nope": executable file not found in $PATH')
    reader, _ = await exec_start(api, {"Cmd": ["nope"], "AttachStdout": True}, {})
    assert b"101" in await head(reader)
    stream, text = await frame(reader)
    assert (stream, text.endswith(b"executable file not found in $PATH\r\n")) == (1, True)


async def test_an_exec_in_a_stopped_container_is_refused_as_http(api: Api) -> None:
    await api.call("POST", "/containers/web/exec", json={"Cmd": ["x"]})
    api.engine.containers.add(make_container(state=State(status=Status.EXITED)))
    assert (await api.call("POST", "/exec/e1/start", json={}))[0] == 409


async def test_a_detached_exec_answers_at_once(api: Api) -> None:
    await api.call("POST", "/containers/web/exec", json={"Cmd": ["x"]})
    assert (await api.call("POST", "/exec/e1/start", json={"Detach": True}))[0] == 200
    status, shown = await api.call("GET", "/exec/e1/json")
    assert status == 200
    assert shown["Running"]
    assert shown["ExitCode"] is None
    assert shown["ProcessConfig"] == {"tty": False, "entrypoint": "x", "arguments": [], "privileged": False}


async def test_websocket_attach(api: Api) -> None:
    interactive(api)
    stdio = api.engine.containers.stdio
    url = "http://x/containers/web/attach/ws?stream=1&stdin=1&stdout=1"
    async with api.session.ws_connect(url) as socket:
        await socket.send_bytes(b"in")
        stdio.pieces.put_nowait((Stream.STDOUT, b"out"))
        message = await socket.receive(5)
        assert message.data == b"out"
        stdio.pieces.put_nowait(None)
        assert (await socket.receive(5)).type.name in ("CLOSE", "CLOSED", "CLOSING")
    assert stdio.received == b"in"


async def test_a_websocket_that_is_closed_lets_go(api: Api) -> None:
    stdio = api.engine.containers.stdio
    async with api.session.ws_connect("http://x/containers/web/attach/ws?stream=1&stdout=1"):
        assert not stdio.closed.is_set()
    await asyncio.wait_for(stdio.closed.wait(), 5)


async def test_a_foreign_websocket_is_refused(api: Api) -> None:
    status, _ = await api.call(
        "GET",
        "/containers/web/attach/ws?stream=1",
        headers={"Origin": "https://evil.example", "Upgrade": "websocket", "Connection": "Upgrade"},
    )
    assert status == 403

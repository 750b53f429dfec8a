from __future__ import annotations

import asyncio
import base64
import logging
import struct

import msgspec
import pytest

from bastide.model.container import Config
from bastide.runtime import Stream

from .conftest import Api, make_container


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, size = struct.unpack(">BxxxL", data[:8])
        found.append((stream, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


async def test_logs_are_framed(api: Api) -> None:
    api.engine.containers.pieces = [(Stream.STDOUT, b"one\n"), (Stream.STDERR, b"two\n")]
    async with api.session.get("http://x/containers/web/logs?stdout=1&stderr=1&tail=5&timestamps=1") as answer:
        assert answer.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert frames(await answer.read()) == [(1, b"one\n"), (2, b"two\n")]
    query = api.engine.containers.query
    assert query is not None
    assert (query.tail, query.timestamps, query.follow) == (5, True, False)


async def test_logs_of_a_terminal_are_raw(api: Api) -> None:
    api.engine.containers.add(make_container(config=Config(image="busybox", tty=True)))
    api.engine.containers.pieces = [(Stream.STDOUT, b"one\r\n")]
    assert (await api.call("GET", "/containers/web/logs?stdout=1"))[1] == b"one\r\n"


async def test_long_logs_arrive_whole(api: Api) -> None:
    api.engine.containers.pieces = [(Stream.STDOUT, b"%d\n" % number) for number in range(100_000)]
    _, data = await api.call("GET", "/containers/web/logs?stdout=1")
    assert data.count(b"\n") >= 100_000
    assert data.endswith(b"99999\n")


@pytest.mark.parametrize("query", ["", "?follow=1", "?stdout=0&stderr=false", "?stdout=1&since=x", "?stdout=1&until=x"])
async def test_bad_log_queries(api: Api, query: str) -> None:
    assert (await api.call("GET", f"/containers/web/logs{query}"))[0] == 400


async def test_who_leaves_while_a_log_is_read_is_no_failure(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.engine.containers.pieces = [(Stream.STDOUT, b"x" * 65536)] * 500
    for _ in range(5):
        reader, writer = await api.raw(b"GET /containers/web/logs?stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.read(100)
        writer.transport.abort()
        await asyncio.sleep(0.05)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_times_of_logs(api: Api) -> None:
    await api.call("GET", "/containers/web/logs?stdout=1&since=1700000000.5&until=2024-01-01T00:00:00Z&tail=all")
    query = api.engine.containers.query
    assert query is not None
    assert (query.since, query.until, query.tail) == (1700000000.5, 1704067200.0, -1)


async def test_attach_replays_the_log(api: Api) -> None:
    api.engine.containers.pieces = [(Stream.STDOUT, b"past")]
    request = b"POST /containers/web/attach?logs=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await api.raw(request)
    data = await reader.read()
    assert frames(data.partition(b"\r\n\r\n")[2]) == [(1, b"past")]
    writer.close()


async def test_archive(api: Api) -> None:
    for method in ("HEAD", "GET"):
        async with api.session.request(method, "http://x/containers/web/archive?path=/etc") as answer:
            stat = msgspec.json.decode(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
            assert (stat["name"], stat["size"], stat["mode"]) == ("f", 3, 420)
            assert await answer.read() == (b"" if method == "HEAD" else b"tarball")
    status, _ = await api.call("PUT", "/containers/web/archive?path=/tmp&noOverwriteDirNonDir=1", data=b"x" * 500_000)
    assert status == 200
    verb, path, data, options = api.engine.containers.calls[0]
    assert (verb, path, len(data), options["no_overwrite_dir"]) == ("put", "/tmp", 500_000, True)


@pytest.mark.parametrize("query", ["", "?path=", "?path=%00"])
async def test_a_path_is_needed(api: Api, query: str) -> None:
    assert (await api.call("GET", f"/containers/web/archive{query}"))[0] == 400


async def test_export_tells_errors_before_it_begins(api: Api) -> None:
    assert (await api.call("GET", "/containers/web/export"))[1] == b"whole"
    api.engine.containers.fail = ZeroDivisionError()
    assert (await api.call("GET", "/containers/web/export"))[0] == 500

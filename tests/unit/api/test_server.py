from __future__ import annotations

import asyncio

import pytest

from bastide.model.errors import HostError, ResourceExhausted

from .conftest import ID, Api


async def test_ping_tells_the_versions(api: Api) -> None:
    for method in ("GET", "HEAD"):
        async with api.session.request(method, "http://x/_ping") as answer:
            assert answer.status == 200
            assert answer.headers["Api-Version"] == "1.47"
            assert answer.headers["Ostype"] == "linux"
            assert answer.headers["Server"].startswith("Bastide/")
            assert answer.headers["Docker-Experimental"] == "false"
            assert await answer.read() == (b"OK" if method == "GET" else b"")


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.47"])
async def test_prefixes_lead_to_one_route(api: Api, prefix: str) -> None:
    assert await api.call("GET", f"{prefix}/containers/json?all=1") == await api.call("GET", "/containers/json?all=1")


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("/v1.48", "client version 1.48 is too new. Maximum supported API version is 1.47"),
        ("/v9.0", "client version 9.0 is too new. Maximum supported API version is 1.47"),
        (
            "/v1.23",
            (
                "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your "
                "client to a newer version"
            ),
        ),
    ],
)
async def test_other_versions_are_refused_in_dockers_words(api: Api, prefix: str, message: str) -> None:
    assert await api.call("GET", f"{prefix}/info") == (400, {"message": message})


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("GET", "/v1.47"), ("POST", "/info"), ("GET", "/v1.47//x/info")]
)
async def test_unknown_paths_and_methods_are_not_found(api: Api, method: str, path: str) -> None:
    assert await api.call(method, path) == (404, {"message": "page not found"})


async def test_an_unexpected_error_is_one_line_without_a_trace(api: Api) -> None:
    api.engine.containers.fail = ZeroDivisionError("secret detail")
    status, answer = await api.call("POST", "/containers/web/pause")
    assert (status, answer) == (500, {"message": "internal error: see the daemon's log"})


@pytest.mark.parametrize(
    ("error", "status"), [(ResourceExhausted("disk is full"), 507), (HostError("mount", 1, "/x"), 500)]
)
async def test_errors_have_their_status(api: Api, error: Exception, status: int) -> None:
    api.engine.containers.fail = error
    code, answer = await api.call("POST", "/containers/web/pause")
    assert code == status
    assert answer["message"] == str(error)


async def test_a_call_goes_on_when_its_client_leaves(api: Api) -> None:
    containers = api.engine.containers
    containers.hold.clear()
    _, writer = await api.raw(b"POST /containers/web/stop HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    containers.hold.set()
    await asyncio.sleep(0.05)
    assert [call[0] for call in containers.calls] == ["stop"]


async def test_a_wait_ends_when_its_client_leaves(api: Api) -> None:
    reader, writer = await api.raw(b"POST /containers/web/wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await asyncio.sleep(0.05)
    assert api.engine.containers.waiters[0].cancelled()


async def test_bodies_are_limited(api: Api) -> None:
    status, answer = await api.call("POST", "/containers/create", json={"Image": "x" * (5 << 20)})
    assert status == 507
    assert "too large" in answer["message"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "EOF"),
        (b"{", "invalid JSON"),
        (b'{"Image": 5}', "invalid JSON"),
        (b"[]", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b'{"HostConfig": {"Memory": "much"}}', "invalid JSON"),
        (b'{"Image": "a"} trailing', "invalid JSON"),
        (b'{"Image": "\xff"}', "invalid JSON"),
    ],
)
async def test_bad_json_is_a_bad_request(api: Api, data: bytes, message: str) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer = await api.call("POST", "/containers/create", data=data, headers=headers)
    assert status == 400
    assert message in answer["message"]


async def test_a_body_that_is_not_json_is_refused(api: Api) -> None:
    status, answer = await api.call("POST", "/containers/create", data=b'{"Image": "a"}')
    assert status == 400
    assert "Content-Type" in answer["message"]


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
async def test_web_pages_are_refused(api: Api, headers: dict[str, str]) -> None:
    status, answer = await api.call("GET", "/info", headers=headers)
    assert status == 403
    assert "web pages" in answer["message"]


@pytest.mark.parametrize(
    "junk",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET /info HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"\0" * 100,
    ],
)
async def test_what_is_not_http_is_refused(api: Api, junk: bytes) -> None:
    reader, writer = await api.raw(junk)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b"Traceback" not in answer


async def test_stop_cuts_streams_and_lets_calls_end(api: Api) -> None:
    reader, _ = await api.raw(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readline()
    raw, _ = await api.raw(b"POST /containers/web/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    await raw.readline()
    api.engine.containers.hold.clear()
    call = asyncio.ensure_future(api.call("POST", "/containers/web/pause"))
    await asyncio.sleep(0.05)
    stopping = asyncio.ensure_future(api.server.stop(5))
    await asyncio.wait_for(asyncio.gather(reader.read(), raw.read()), 1)
    api.engine.containers.hold.set()
    assert (await call)[0] == 204
    await asyncio.wait_for(stopping, 2)
    assert api.engine.containers.get("web").id == ID


async def test_a_request_without_a_version_of_http_is_not_answered(api: Api) -> None:
    reader, writer = await api.raw(b"GET /_ping\r\n\r\n")
    assert not (await reader.read()).startswith(b"HTTP/0.9 200")
    writer.close()

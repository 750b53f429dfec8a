"""The client: HTTP by hand, JSON by the C scanner, errors by status, endpoints."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pretender import Pretender, Request, hijack, reply, stream

from bastide.client import Client, Endpoint, Unreachable, codec, quote, segment
from bastide.client.http import Closed, Connection
from bastide.model import errors


@pytest.fixture
def pretender(tmp_path: Path) -> Iterator[Pretender]:
    made = Pretender(tmp_path / "d.sock")
    yield made
    made.close()


@pytest.fixture
def client(pretender: Pretender) -> Client:
    return Client(Endpoint(pretender.url))


VALUES: list[Any] = [
    None,
    True,
    0,
    -1.5,
    'ä\n"\\\x1f\u2028😀',
    [],
    {},
    [1, [2, {"a": None}]],
    {"k": {"n": [True, False]}, "": ""},
]


@pytest.mark.parametrize("value", VALUES)
def test_json_is_json(value: Any) -> None:
    assert json.loads(codec.encode(value)) == value
    assert codec.decode(json.dumps(value).encode()) == value
    assert codec.decode(" \n" + json.dumps(value) + "\n") == value
    assert codec.pretty(value) == json.dumps(value, indent=4, ensure_ascii=False)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nul", '{"a" 1}', "1 2", "[" * 100_000])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|Unterminated|Illegal|Extra"):
        codec.decode(text)


def test_go_escapes_markup() -> None:
    assert codec.go({"a": "<&>ä"}) == '{"a":"\\u003c\\u0026\\u003eä"}'


def test_quoting() -> None:
    assert quote("a/b:c@d,e") == "a/b:c@d,e"
    assert quote("a b?#%&=\r\nä") == "a%20b%3F%23%25%26%3D%0D%0A%C3%A4"
    assert segment("a/b") == "a%2Fb"
    assert segment("...") == "%2E%2E%2E"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidArgument),
        (401, errors.Unauthorized),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (500, errors.BastideError),
        (501, errors.Unsupported),
        (503, errors.Unavailable),
        (507, errors.ResourceExhausted),
    ],
)
def test_errors_by_status(pretender: Pretender, client: Client, status: int, kind: type) -> None:
    pretender.answers["GET /info"] = reply({"message": "why"}, status)
    with pytest.raises(errors.BastideError, match="why") as raised:
        client.system.info()
    assert type(raised.value) is kind


def test_an_error_that_is_no_json(pretender: Pretender, client: Client) -> None:
    pretender.answers["GET /info"] = reply(b"<html>", 500)
    with pytest.raises(errors.BastideError, match="<html>"):
        client.system.info()


def test_a_connection_is_used_again(pretender: Pretender, client: Client) -> None:
    connections = set()

    def send(request: Request, channel: socket.socket) -> None:
        connections.add(channel.fileno())
        reply({})(request, channel)

    pretender.answers["GET /info"] = send
    for _ in range(3):
        client.system.info()
    assert len(connections) == 1
    assert len(pretender.requests) == 3


def test_a_connection_that_was_closed_is_not(pretender: Pretender, client: Client) -> None:
    def send(request: Request, channel: socket.socket) -> None:
        reply({})(request, channel)
        channel.shutdown(socket.SHUT_RDWR)

    pretender.answers["POST /containers/a/start"] = send
    for _ in range(3):
        client.containers.start("a")
        time.sleep(0.05)
    assert len(pretender.requests) == 3


def test_chunks_and_lines(pretender: Pretender, client: Client) -> None:
    pretender.answers["GET /events"] = stream({"n": 1}, {"n": 2})
    assert list(client.system.events(filters={"type": ["container"]})) == [{"n": 1}, {"n": 2}]
    assert pretender.requests[0].query == {"filters": ['{"type":["container"]}']}


def test_a_body_in_chunks(pretender: Pretender, client: Client) -> None:
    pretender.answers["POST /images/load"] = stream({"stream": "ok"})
    blocks = [b"a" * 100_000, b"", b"b"]
    assert list(client.images.load(iter(blocks))) == [{"stream": "ok"}]
    assert pretender.requests[0].body == b"".join(blocks)


def test_a_refusal_before_the_body_was_read(pretender: Pretender, client: Client) -> None:
    def refuse(channel: socket.socket) -> None:
        data = b'{"message":"too big"}'
        channel.recv(1000)
        channel.sendall(b"HTTP/1.1 400 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))

    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with theirs:
        connection.send("PUT", "/x", {}, b"small")
        refuse(theirs)
        response = connection.answer()
    assert response.status == 400
    assert not response.reusable
    with pytest.raises(errors.InvalidArgument, match="too big"):
        client.check(response)


def test_raw_streams(pretender: Pretender, client: Client) -> None:
    def talk(channel: socket.socket) -> None:
        channel.sendall(b"early")
        channel.sendall(channel.recv(100).upper())

    pretender.answers["POST /containers/a/attach"] = hijack(talk)
    raw = client.containers.attach("a", {"stream": True})
    got = raw.exactly(5)
    raw.socket.sendall(b"late")
    assert got + raw.exactly(4) == b"earlyLATE"
    assert raw.some() == b""


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"x" * (3 << 20)],
)
def test_broken_answers(answer: bytes) -> None:
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs:
            try:
                theirs.sendall(answer)
            except OSError:
                return

    thread = threading.Thread(target=send)
    thread.start()
    connection = Connection(ours)
    with pytest.raises((Closed, errors.Unavailable)):
        connection.answer().read()
    connection.close()
    thread.join()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="Is it running"):
        Client(Endpoint(f"unix://{tmp_path}/none")).system.ping()
    with pytest.raises(Unreachable, match="Is it running"):
        Client(Endpoint("tcp://127.0.0.1:1")).system.ping()


def test_a_daemon_that_can_be_started(pretender: Pretender, tmp_path: Path) -> None:
    later = tmp_path / "later.sock"
    started = []

    def start() -> bool:
        started.append(Pretender(later))
        started[0].answers["GET /info"] = reply({"ID": "x"})
        return True

    client = Client(Endpoint(f"unix://{later}"), start)
    assert client.system.info() == {"ID": "x"}
    started[0].close()


@pytest.mark.parametrize(
    ("environment", "url", "given"),
    [
        ({}, "unix:///run/bastide/bastide.sock", False),
        ({"BASTIDE_RUN_ROOT": "/r"}, "unix:///r/bastide.sock", False),
        ({"DOCKER_HOST": "tcp://h:1"}, "tcp://h:1", True),
        ({"DOCKER_HOST": "tcp://h:1", "BASTIDE_HOST": "/b.sock"}, "unix:///b.sock", True),
        ({"BASTIDE_HOST": "h:1"}, "tcp://h:1", True),
        ({"DOCKER_HOST": "ssh://u@h"}, "ssh://u@h", True),
    ],
)
def test_endpoints(environment: dict[str, str], url: str, given: bool) -> None:
    made = Endpoint.from_environment(environment)
    assert (made.url, made.given) == (url, given)


@pytest.mark.parametrize("url", ["foo://x", "unix://", "tcp://", "npipe:////./pipe/x"])
def test_bad_endpoints(url: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="unable to parse docker host"):
        Endpoint(url)


def test_tls_by_environment() -> None:
    made = Endpoint.from_environment({"DOCKER_HOST": "tcp://h", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"})
    assert made.tls is not None
    assert (made.tls.authority, made.tls.certificate, made.tls.key, made.tls.verify) == (
        "/c/ca.pem",
        "/c/cert.pem",
        "/c/key.pem",
        True,
    )


def test_the_version_that_was_asked_for(pretender: Pretender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", "1.41")
    pretender.answers["GET /v1.41/info"] = reply({})
    assert Client(Endpoint(pretender.url)).system.info() == {}

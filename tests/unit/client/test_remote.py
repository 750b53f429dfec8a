"""Endpoints that leave the host: TCP, mutual TLS, ssh."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pretender import Pretender, reply

import bastide
from bastide.client import Client, Endpoint, Unreachable
from bastide.client.endpoint import TLS
from bastide.client.remote import split_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("host", ("host", 2375)),
        ("host:1", ("host", 1)),
        ("[::1]:1", ("::1", 1)),
        ("[::1]", ("::1", 2375)),
        ("1.2.3.4:1/path", ("1.2.3.4", 1)),
        (":1", ("localhost", 1)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address, 2375) == expected


def test_a_bad_port() -> None:
    with pytest.raises(Unreachable, match="the port is not a number"):
        split_address("host:x", 1)


def serve(wrap: Callable[[socket.socket], socket.socket], answers: int = 1) -> int:
    """Answer that many connections with the same JSON; the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for _ in range(answers):
            plain, _ = listener.accept()
            try:
                channel = wrap(plain)
            except OSError:
                plain.close()
                continue
            with channel:
                channel.recv(65536)
                body = json.dumps({"ID": "far"}).encode()
                channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        listener.close()

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])


def test_tcp() -> None:
    port = serve(lambda channel: channel)
    assert Client(Endpoint(f"tcp://127.0.0.1:{port}")).system.info() == {"ID": "far"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority and a certificate for 127.0.0.1 that is both a server's and a client's."""
    folder = tmp_path_factory.mktemp("tls")
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    for name, more in (
        ("ca", ["-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:TRUE"]),
        ("cert", ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-CA", "ca.pem", "-CAkey", "ca-key.pem"]),
    ):
        key = "ca-key.pem" if name == "ca" else "key.pem"
        subprocess.run(
            [*new, "-keyout", key, "-out", f"{name}.pem", *more], cwd=folder, capture_output=True, check=True
        )
    return folder


def mutual(folder: Path) -> Callable[[socket.socket], socket.socket]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return lambda channel: context.wrap_socket(channel, server_side=True)


def test_mutual_tls(certificates: Path, tmp_path: Path) -> None:
    port = serve(mutual(certificates), 3)
    url = f"tcp://127.0.0.1:{port}"
    good = Endpoint.from_environment(
        {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    )
    assert Client(good).system.info() == {"ID": "far"}
    nobody = TLS(str(certificates / "ca.pem"), "/nowhere", "/nowhere", True)
    with pytest.raises((Unreachable, OSError)):
        Client(Endpoint(url, nobody)).system.info()
    stranger = TLS(str(tmp_path / "none.pem"), str(certificates / "cert.pem"), str(certificates / "key.pem"), True)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        Client(Endpoint(url, stranger)).system.info()


def test_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = Pretender(tmp_path / "far.sock")
    far.answers["GET /info"] = reply({"ID": "far"})
    program = Path(bastide.__file__).parent / "cli" / "__main__.py"
    fake = tmp_path / "ssh"
    fake.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nwhile [ "$1" != bastide ]; do shift; done; shift\n'
        f'exec {sys.executable} -I -S {program} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    client = Client(Endpoint(f"ssh://me@example.com:2222{tmp_path}/far.sock"))
    assert client.system.info() == {"ID": "far"}
    assert client.system.info() == {"ID": "far"}
    client.close()
    far.close()
    asked = (tmp_path / "asked").read_text().split()
    assert asked[-4:] == ["--host", f"unix://{tmp_path}/far.sock", "system", "dial-stdio"]
    assert asked[asked.index("-l") + 1] == "me"
    assert asked[asked.index("-p") + 1] == "2222"

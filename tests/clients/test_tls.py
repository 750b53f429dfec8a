"""The docker command line over TCP with mutual TLS."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.newer import docker_folder
from tests.living import Daemon

pytestmark = pytest.mark.beyond


def openssl(*words: str, folder: Path) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def certify(folder: Path, name: str, authority: str, extensions: str) -> None:
    """A key and a certificate of an authority."""
    subject = ("-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
    openssl("req", "-newkey", "rsa:2048", "-nodes", *subject, folder=folder)
    (folder / "extensions").write_text(extensions)
    signed = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}-key.pem", "-CAcreateserial", "-days", "1")
    files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "extensions")
    openssl("x509", "-req", *files, *signed, folder=folder)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, a server and a client of the first, a client of the second."""
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ours", "theirs"):
        made = ("-keyout", f"{authority}-key.pem", "-out", f"{authority}.pem", "-subj", f"/CN={authority}")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *made, folder=folder)
    certify(folder, "server", "ours", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    certify(folder, "client", "ours", "extendedKeyUsage=clientAuth\n")
    certify(folder, "stranger", "theirs", "extendedKeyUsage=clientAuth\n")
    served = folder / "served"
    served.mkdir()
    for source, target in (("ours.pem", "ca.pem"), ("server.pem", "cert.pem"), ("server-key.pem", "key.pem")):
        (served / target).write_bytes((folder / source).read_bytes())
    return folder


@pytest.fixture(scope="module")
def address(keys: Path) -> Iterator[str]:
    """Where a daemon serves TCP with TLS."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Daemon("tls", "10.94.0.0/16", "10.95.0.0/16", tcp=f"127.0.0.1:{port}", tls_directory=str(keys / "served"))
    try:
        made.start()
        yield f"127.0.0.1:{port}"
    finally:
        made.close()


def docker(keys: Path, address: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(docker_folder() / "docker"), "--host", f"tcp://{address}", *flags]
    environment = {"PATH": os.environ["PATH"], "HOME": str(keys), "DOCKER_CONFIG": str(keys)}
    return subprocess.run(
        [*command, "version", "--format", "{{.Server.Os}}"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def shown(keys: Path, name: str) -> tuple[str, ...]:
    """The flags with which a client shows a certificate."""
    own = ("--tlscert", str(keys / f"{name}.pem"), "--tlskey", str(keys / f"{name}-key.pem"))
    return ("--tlsverify", "--tlscacert", str(keys / "ours.pem"), *own)


def test_each_shows_its_certificate(keys: Path, address: str) -> None:
    done = docker(keys, address, *shown(keys, "client"))
    assert (done.returncode, done.stdout) == (0, "linux\n"), done.stderr


@pytest.mark.parametrize("who", ["nobody", "stranger", "plain"])
def test_others_get_no_answer(keys: Path, address: str, who: str) -> None:
    verified = ("--tlsverify", "--tlscacert", str(keys / "ours.pem"))
    flags = {"nobody": verified, "stranger": shown(keys, "stranger"), "plain": ()}[who]
    done = docker(keys, address, *flags)
    assert done.returncode == 1
    assert "linux" not in done.stdout

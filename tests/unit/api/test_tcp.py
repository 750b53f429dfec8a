from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bastide.api.docker import containers, system
from bastide.api.server import Server, tls_context
from bastide.model.config import Settings
from bastide.model.errors import HostError, InvalidArgument

from .conftest import FakeEngine


def openssl(*args: str, cwd: Path) -> None:
    subprocess.run(["openssl", *args], cwd=cwd, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    """A certificate authority `NAME-ca.pem`."""
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-keyout", f"{name}-ca.key", "-out", f"{name}-ca.pem", "-subj", f"/CN={name}"),
        cwd=folder,
    )


def certificate(folder: Path, by: str, name: str) -> None:
    """A certificate `NAME.pem` for 127.0.0.1 by an authority."""
    (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        cwd=folder,
    )
    openssl(
        *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}-ca.pem", "-CAkey", f"{by}-ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        cwd=folder,
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities; ours signed a server and a client, the other one a client."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ours", "other"):
        authority(folder, name)
        certificate(folder, name, f"{name}-client")
    certificate(folder, "ours", "server")
    for source, target in (("ours-ca.pem", "ca.pem"), ("server.pem", "cert.pem"), ("server.key", "key.pem")):
        (folder / target).write_bytes((folder / source).read_bytes())
    return folder


def client_context(keys: Path, client: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(keys / "ours-ca.pem"))
    if client:
        made.load_cert_chain(keys / f"{client}.pem", keys / f"{client}.key")
    return made


Get = Callable[..., Any]


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Get]:
    """A server on TCP alone, and a function that asks it for a path."""
    engine = FakeEngine(settings)
    server = Server(engine, settings, [*containers.routes(), *system.routes()])  # type: ignore[arg-type]
    await server.start([])
    _, port = server.addresses[0][:2]

    async def get(scheme: str, path: str, tls: ssl.SSLContext | None = None, **headers: str) -> int:
        async with aiohttp.ClientSession() as session:
            url = f"{scheme}://127.0.0.1:{port}{path}"
            async with session.get(
                url, ssl=tls or True, headers={k.replace("_", "-"): v for k, v in headers.items()}
            ) as answer:
                await answer.read()
                return answer.status

    try:
        yield get
    finally:
        await server.stop(0.2)
        engine.store.close()


@pytest.fixture
def settings(tmp_path: Path, keys: Path) -> Settings:
    return Settings(data_root=tmp_path, run_root=tmp_path, tcp="127.0.0.1:0", tls_directory=keys)


async def test_a_client_with_our_certificate_gets_in(settings: Settings, keys: Path) -> None:
    async with serving(settings) as get:
        assert await get("https", "/v1.47/info", client_context(keys, "ours-client")) == 200


@pytest.mark.parametrize("client", [None, "other-client"])
async def test_others_stay_out(settings: Settings, keys: Path, client: str | None) -> None:
    async with serving(settings) as get:
        with pytest.raises(aiohttp.ClientError):
            await get("https", "/info", client_context(keys, client))


async def test_plain_http_stays_out(settings: Settings) -> None:
    async with serving(settings) as get:
        with pytest.raises(aiohttp.ClientError):
            await get("http", "/info")


async def test_tcp_without_keys_is_refused(tmp_path: Path) -> None:
    settings = Settings(data_root=tmp_path, run_root=tmp_path, tcp="127.0.0.1:0", tls_directory=tmp_path / "none")
    with pytest.raises(InvalidArgument, match="insecure_tcp"):
        tls_context(settings)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:2375"}, 200),
        ({"Host": "[::1]:2375"}, 200),
        ({"Host": "rebound.example:2375"}, 403),
        ({"Origin": "http://rebound.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
async def test_without_tls_web_pages_stay_out(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    settings = Settings(data_root=tmp_path, run_root=tmp_path, tcp="127.0.0.1:0", insecure_tcp=True)
    async with serving(settings) as get:
        assert await get("http", "/info", **headers) == status


@pytest.mark.parametrize(
    ("tcp", "error"), [("nonsense", InvalidArgument), ("127.0.0.1:x", InvalidArgument), ("192.0.2.1:1", HostError)]
)
async def test_bad_addresses(tmp_path: Path, tcp: str, error: type[Exception]) -> None:
    settings = Settings(data_root=tmp_path, run_root=tmp_path, tcp=tcp, insecure_tcp=True)
    with pytest.raises(error):
        async with serving(settings):
            pass

"""Registries in the middle: certificates, names, downgrades (ATTACKS 5)."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.image_world import World
from tests.registry_double import RegistryDouble, layer_tar

from bastide.images import registries
from bastide.images.reference import parse
from bastide.model.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable

SMALL = layer_tar({"a": b"x"})


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate that it signed itself, and that certificate."""
    key, crt = folder / f"{name}.key", folder / f"{name}.crt"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={name}"]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            crt,
            *subject,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    return context, crt


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is a stranger like any other."""
    monkeypatch.setattr(registries, "is_loopback", lambda host: False)


@pytest.fixture
async def secure(world: World, tmp_path: Path) -> AsyncIterator[RegistryDouble]:
    """A second registry, with TLS and an image."""
    context, _ = certificate(tmp_path, "IP:127.0.0.1")
    made = RegistryDouble()
    await made.start(context)
    made.image(SMALL)
    yield made
    await made.close()


def trust(world: World, host: str, path: Path) -> None:
    place = world.place / "containers" / "certs.d" / host
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(path.read_bytes())


async def pull(world: World, registry: RegistryDouble) -> None:
    await world.images.pull(parse(f"{registry.host}/app"))


async def test_self_signed_is_refused_with_what_to_do(strict: None, world: World, secure: RegistryDouble) -> None:
    with pytest.raises(Unavailable, match=r"is not trusted: .* put its authority's certificate into .*certs\.d"):
        await pull(world, secure)
    assert secure.requests == []


async def test_own_authority(strict: None, world: World, secure: RegistryDouble, tmp_path: Path) -> None:
    trust(world, secure.host, tmp_path / "IP:127.0.0.1.crt")
    await pull(world, secure)


async def test_trusted_certificate_of_another_name(strict: None, world: World, tmp_path: Path) -> None:
    context, crt = certificate(tmp_path, "DNS:other.example")
    registry = RegistryDouble()
    await registry.start(context)
    try:
        registry.image(SMALL)
        trust(world, registry.host, crt)
        with pytest.raises(Unavailable, match="is not trusted"):
            await pull(world, registry)
        assert registry.requests == []
    finally:
        await registry.close()


async def test_insecure_by_name_only(strict: None, world: World, secure: RegistryDouble) -> None:
    (world.place / "containers").mkdir()
    (world.place / "containers" / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{secure.host}"\ninsecure = true\n'
    )
    await pull(world, secure)


async def test_plain_http_is_not_fallen_back_to(strict: None, world: World) -> None:
    world.registry.image(SMALL)
    with pytest.raises(Unavailable):
        await pull(world, world.registry)
    assert world.registry.requests == []


async def test_redirect_away_from_tls(world: World, secure: RegistryDouble) -> None:
    async def leave(request: web.Request, data: bytes) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"http://{world.registry.host}{request.path}")

    world.registry.blobs = secure.blobs
    secure.on_blob = leave
    with pytest.raises(PermissionDenied, match="away from TLS"):
        await pull(world, secure)
    assert world.registry.requests == []


async def test_token_server_without_tls(world: World, secure: RegistryDouble) -> None:
    challenge = f'Bearer realm="http://{world.registry.host}/token"'
    secure.before = lambda request: web.Response(status=401, headers={"WWW-Authenticate": challenge})
    with pytest.raises(PermissionDenied, match="without TLS"):
        await pull(world, secure)
    assert world.registry.requests == []


async def test_search(world: World, secure: RegistryDouble, tmp_path: Path) -> None:
    """The old index's search, over TLS that is checked, with filters and a limit."""
    rows = [
        {"name": f"team/app{number}", "description": "an app", "star_count": number, "is_official": number == 9}
        for number in range(10)
    ]
    asked: list[str] = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        return web.json_response({"results": rows})

    secure.before = answer
    term = f"{secure.host}/app"
    trust(world, secure.host, tmp_path / "IP:127.0.0.1.crt")
    found = await world.images.search(term, "3", {}, None)
    assert [row["name"] for row in found] == ["team/app0", "team/app1", "team/app2"]
    assert asked == ["/v1/search?q=app&n=3"]
    assert len(await world.images.search(term, "", {"stars": ["7"]}, None)) == 3
    (official,) = await world.images.search(term, "", {"is-official": ["true"]}, None)
    assert official["star_count"] == 9
    for limit, filters in (("0", {}), ("101", {}), ("", {"colour": ["blue"]})):
        with pytest.raises(InvalidArgument, match=r"limit|invalid filter"):
            await world.images.search(term, limit, filters, None)
    secure.before = lambda request: web.Response(body=b"<html>")
    with pytest.raises(InvalidArgument, match="no valid answer to a search"):
        await world.images.search(term, "", {}, None)
    secure.before = lambda request: web.Response(status=404)
    with pytest.raises(NotFound):
        await world.images.search(term, "", {}, None)

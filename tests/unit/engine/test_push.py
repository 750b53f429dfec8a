"""Pushing to a registry that loses uploads, refuses them, or sends them elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from tests.image_world import World
from tests.registry_double import layer_tar, sha256

from bastide.engine import remote
from bastide.images.auth import Credentials
from bastide.model.errors import NotFound, PermissionDenied, Unauthorized, Unavailable

SMALL = layer_tar({"a": b"pushed"})


class Uploads:
    """The write half of a registry, as its `before`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lose = 0
        self.location = "/v2/dst/blobs/uploads/1"
        self.mounts: list[str] = []
        self.received: dict[str, bytes] = {}
        self._data: dict[str, bytes] = {}

    async def __call__(self, request: web.Request) -> web.Response:
        world = self.world
        if "/manifests/" in request.path:
            data = await request.read()
            self.received[request.match_info["rest"].rpartition("/")[2]] = data
            return web.Response(status=201)
        if request.method == "POST":
            self.mounts.append(request.query.get("from", ""))
            if request.query.get("from") == "src" and request.query["mount"] in world.registry.blobs:
                return web.Response(status=201)
            return web.Response(status=202, headers={"Location": f"{self.location}?upload={len(self.mounts)}"})
        upload = request.query["upload"]
        if request.method == "PATCH":
            self._data[upload] = await request.read()
            if self.lose:
                self.lose -= 1
                return web.json_response({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}, status=404)
            return web.Response(status=202, headers={"Location": f"{self.location}?upload={upload}&state=2"})
        digest = request.query["digest"]
        if sha256(self._data[upload]) != digest:
            return web.json_response({"errors": [{"code": "DIGEST_INVALID", "message": "no"}]}, status=400)
        self.received[digest] = self._data[upload]
        return web.Response(status=201)


@pytest.fixture
async def uploads(world: World) -> Uploads:
    """Also has the image `dst:1` here, pulled from `src:1`."""
    made = Uploads(world)
    world.registry.write = made
    world.registry.image(SMALL, tag="1")
    image = await world.pull("src:1")
    world.images.tag(image.id, f"{world.registry.host}/dst", "1")
    world.registry.blobs_of = {"src"}
    return made


async def push(world: World, tag: str = "1", auth: Credentials | None = None) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    await world.images.push(f"{world.registry.host}/dst", tag, auth, told.append)
    return told


async def test_missing_blobs_are_mounted_or_sent(world: World, uploads: Uploads) -> None:
    told = await push(world)
    image = world.images.list()[0]
    assert uploads.mounts == ["src", "src"]
    assert uploads.received["1"] == world.images.content.read(image.manifest.digest)
    assert told[-1]["aux"] == {"Tag": "1", "Digest": image.manifest.digest, "Size": image.manifest.size}
    assert f"{world.registry.host}/dst@{image.manifest.digest}" in world.images.digests(image.id)
    world.registry.blobs.clear()
    uploads.received.clear()
    await push(world)
    assert {layer.digest for layer in image.layers} | {image.id} <= set(uploads.received)


async def test_an_upload_tells_how_far_it_is(world: World, uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_REPORT_SECONDS", 0)
    world.registry.blobs.clear()
    told = await push(world)
    (layer,) = world.images.list()[0].layers
    bars = [message["progressDetail"] for message in told if message.get("status") == "Pushing"]
    assert bars
    assert all(0 < bar["current"] <= bar["total"] == layer.size for bar in bars)
    assert "Pushed" in [message.get("status") for message in told]


async def test_lost_upload_begins_again(world: World, uploads: Uploads) -> None:
    world.registry.blobs.clear()
    uploads.lose = 2
    await push(world)
    uploads.lose = 1000
    uploads.received.clear()
    with pytest.raises(Unavailable):
        await push(world)
    assert "1" not in uploads.received, "a manifest without its blobs"


async def test_upload_elsewhere_without_tls(world: World, uploads: Uploads) -> None:
    world.registry.blobs.clear()
    uploads.location = "http://169.254.169.254/steal"
    with pytest.raises(PermissionDenied, match="wants an upload to go to"):
        await push(world)


async def test_refused(world: World, uploads: Uploads) -> None:
    error = {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}
    world.registry.before = lambda request: web.json_response(error, status=403)
    with pytest.raises(Unauthorized, match=r"push access to .*/dst denied: denied"):
        await push(world)


async def test_one_token_for_the_whole_push(world: World, uploads: Uploads) -> None:
    """The rights of a token are those that the push needs, whichever request met the challenge."""
    world.registry.blobs.clear()
    asked: list[str] = []

    def check(request: web.Request) -> web.Response | None:
        if request.path == "/token":
            asked.append(request.query["scope"])
            return web.json_response({"token": "push" if "push" in request.query["scope"] else "pull"})
        if request.headers.get("Authorization") == "Bearer push":
            return None
        scope = "repository:dst:pull" if request.method in ("GET", "HEAD") else "repository:dst:pull,push"
        challenge = f'Bearer realm="http://{world.registry.host}/token",scope="{scope}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    world.registry.before = check
    await push(world)
    assert set(asked) == {"repository:dst:pull,push"}


async def test_unknown_tag(world: World, uploads: Uploads) -> None:
    with pytest.raises(NotFound, match="An image does not exist locally with the tag"):
        await push(world, "2")

"""Images over a registry that misbehaves (ATTACKS 1 to 6, 38, 39) and in Docker's words."""

from __future__ import annotations

import asyncio
import errno
import gzip
from typing import Any

import pytest
from aiohttp import web
from tests.image_world import World
from tests.registry_double import (
    INDEX,
    RegistryDouble,
    cut_after,
    layer_tar,
    random_layer,
    sha256,
    whole_or_part,
)

from bastide.images import archive as archives
from bastide.images.auth import Credentials
from bastide.images.reference import parse
from bastide.model.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthorized,
    Unavailable,
)

SMALL = layer_tar({"etc/motd": b"hello"})


# -- pull ----------------------------------------------------------------------------------------


async def test_pull_and_again(world: World) -> None:
    digest = world.registry.image(SMALL, random_layer("data", 300_000))
    image = await world.pull()
    assert world.images.references(image.id) == [f"{world.registry.host}/app:latest"]
    assert world.images.digests(image.id) == [f"{world.registry.host}/app@{digest}"]
    assert (world.snapshotter.place / sha256(SMALL)[7:] / "etc/motd").read_bytes() == b"hello"
    assert image.size == 5 + 300_000
    statuses = [message["status"] for message in world.told]
    assert statuses[0] == f"Pulling from {world.registry.host}/app"
    assert statuses.count("Pull complete") == 2
    assert statuses[-2:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {world.registry.host}/app:latest",
    ]
    before = len(world.registry.requests)
    assert (await world.pull()).id == image.id
    assert world.told[-1]["status"].startswith("Status: Image is up to date for")
    assert len(world.registry.requests) == before + 1
    assert [event.action for event in world.events.past(0)] == ["pull", "pull"]


async def test_survives_a_restart(world: World) -> None:
    world.registry.image(SMALL)
    image = await world.pull()
    await world.restart()
    assert world.images.get(f"{world.registry.host}/app") == image
    assert world.images.get(image.id[7:19]) == image


@pytest.mark.parametrize("wrong", [b"", b"x", "other", "longer"])
async def test_layer_of_other_bytes(world: World, wrong: bytes | str) -> None:
    world.registry.image(SMALL)
    digest = next(d for d, data in world.registry.blobs.items() if data[:2] == b"\x1f\x8b")
    right = world.registry.blobs[digest]
    made = {"other": gzip.compress(layer_tar({"evil": b"x"})), "longer": right + b"more"}
    world.registry.blobs[digest] = made[wrong] if isinstance(wrong, str) else wrong
    with pytest.raises((InvalidArgument, Unavailable)):
        await world.pull()
    assert world.nothing()
    assert not world.images.content.has(digest)
    world.registry.blobs[digest] = right
    await world.pull()


async def test_config_of_other_bytes(world: World) -> None:
    world.registry.image(SMALL)
    digest = next(d for d, data in world.registry.blobs.items() if data[:1] == b"{")
    world.registry.blobs[digest] = world.registry.blobs[digest].replace(b'"sh"', b'"rm"')
    with pytest.raises(InvalidArgument, match="does not match its digest"):
        await world.pull()
    assert world.nothing()


async def test_layer_that_is_not_what_the_configuration_says(world: World) -> None:
    rootfs = {"type": "layers", "diff_ids": [sha256(b"another layer")]}
    world.registry.image(SMALL, rootfs=rootfs)
    with pytest.raises(InvalidArgument, match="layers from manifest don't match image configuration"):
        await world.pull()
    assert world.nothing()


async def test_layer_of_a_private_image_cannot_be_claimed(world: World) -> None:
    """Naming the diff id of a layer that is here does not give it to an image that lacks its bytes."""
    secret = layer_tar({"secret": b"private"})
    world.registry.image(secret, tag="private")
    await world.pull("app:private")
    world.registry.image(SMALL, tag="thief", rootfs={"type": "layers", "diff_ids": [sha256(secret)]})
    with pytest.raises(InvalidArgument, match="don't match"):
        await world.pull("app:thief")
    assert len(world.images.list()) == 1


async def test_count_of_layers_that_differs(world: World) -> None:
    world.registry.image(SMALL, rootfs={"type": "layers", "diff_ids": [sha256(SMALL)] * 2})
    with pytest.raises(InvalidArgument, match="don't match"):
        await world.pull()


async def test_connection_that_breaks_is_taken_up(world: World) -> None:
    world.registry.image(random_layer("data", 400_000))
    digest = max(world.registry.blobs, key=lambda d: len(world.registry.blobs[d]))

    async def cut(request: web.Request, data: bytes) -> web.StreamResponse:
        return await cut_after(request, data, 150_000) if len(data) > 1000 else whole_or_part(request, data)

    world.registry.on_blob = cut
    await world.pull()
    ranges = world.registry.fetched(digest)
    assert ranges[0] == ""
    assert len(ranges) > 1
    assert all(value.startswith("bytes=") for value in ranges[1:])


async def test_registry_that_knows_no_ranges(world: World) -> None:
    world.registry.image(random_layer("data", 400_000))
    turns = 0

    async def ignore(request: web.Request, data: bytes) -> web.StreamResponse:
        nonlocal turns
        if len(data) < 1000:
            return web.Response(body=data)
        turns += 1
        if turns == 1:
            return await cut_after(request, data, 150_000)
        return web.Response(body=data)

    world.registry.on_blob = ignore
    await world.pull()
    assert turns == 2


async def test_registry_gone_half_way_then_the_next_try(world: World) -> None:
    world.registry.image(SMALL, random_layer("data", 400_000))
    digest = max(world.registry.blobs, key=lambda d: len(world.registry.blobs[d]))

    async def gone(request: web.Request, data: bytes) -> web.StreamResponse:
        if len(data) < 1000:
            return web.Response(body=data)
        first = "Range" not in request.headers
        return await cut_after(request, data, 150_000 if first else 0)

    world.registry.on_blob = gone
    with pytest.raises(Unavailable, match="does not deliver"):
        await world.pull()
    assert not world.images.list()
    assert world.images.content.partial(digest).stat().st_size > 0
    world.registry.on_blob = None
    world.registry.requests.clear()
    await world.restart()
    await world.pull()
    assert [value != "" for value in world.registry.fetched(digest)] == [True]
    assert not world.images.content.partial(digest).exists()


async def test_bad_partial_is_begun_again(world: World) -> None:
    world.registry.image(random_layer("data", 400_000))
    digest = max(world.registry.blobs, key=lambda d: len(world.registry.blobs[d]))
    world.images.content.partial(digest).write_bytes(b"rubbish" * 100)
    await world.pull()
    assert world.registry.fetched(digest) == ["bytes=700-", ""]


async def test_tag_that_moves_while_it_is_pulled(world: World) -> None:
    """What was resolved first is what is pulled."""
    first = world.registry.image(SMALL)
    other = layer_tar({"other": b"x"})

    def move(request: web.Request) -> web.Response | None:
        if "/blobs/" in request.path:
            world.registry.image(other)
        return None

    world.registry.before = move
    image = await world.pull()
    assert image.target.digest == first
    assert image.diff_ids == [sha256(SMALL)]


async def test_digest_never_becomes_a_tag(world: World) -> None:
    digest = world.registry.image(SMALL)
    other = world.registry.image(layer_tar({"other": b"x"}), tag="other")
    world.registry.manifests[digest] = world.registry.manifests[other]
    with pytest.raises(InvalidArgument, match="manifest verification failed"):
        await world.pull(f"app@{digest}")
    with pytest.raises(InvalidArgument, match="manifest verification failed"):
        await world.pull(f"app:other@{digest}")
    assert world.nothing()


async def test_type_that_the_registry_lies_about(world: World) -> None:
    digest = world.registry.image(SMALL)
    world.registry.manifests["latest"] = (world.registry.manifests[digest][0], INDEX)
    with pytest.raises(InvalidArgument, match="its sender"):
        await world.pull()


def _entry(digest: str, size: int, kind: str, **platform: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size, "platform": {"os": "linux", **platform}}


async def test_index_gives_the_wanted_platform(world: World) -> None:
    entries = []
    for name in ("amd64", "arm64"):
        digest = world.registry.image(layer_tar({name: b"x"}), tag=name, architecture=name)
        data, kind = world.registry.manifests[digest]
        entries.append(_entry(digest, len(data), kind, architecture=name))
    index = world.registry.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX, "latest")
    arm = await world.pull(platform="linux/arm64")
    assert arm.platform.architecture == "arm64"
    assert arm.target.digest == index
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        await world.pull(platform="linux/s390x")
    with pytest.raises(NotFound, match="does not match the specified platform"):
        await world.pull("app:arm64", platform="linux/amd64")


async def test_index_that_holds_itself(world: World) -> None:
    digest = world.registry.image(SMALL)
    for _ in range(5):
        data, kind = world.registry.manifests[digest]
        entry = _entry(digest, len(data), kind, architecture="amd64")
        digest = world.registry.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX)
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        await world.pull(f"app@{digest}")


async def test_every_tag(world: World) -> None:
    for number in range(3):
        world.registry.image(layer_tar({"n": b"%d" % number}), tag=f"v{number}")

    def page(request: web.Request) -> web.Response | None:
        if not request.path.endswith("/tags/list"):
            return None
        if "last" in request.query:
            return web.json_response({"name": "app", "tags": ["v2"]})
        link = {"Link": '</v2/app/tags/list?n=1000&last=v1>; rel="next"'}
        return web.json_response({"name": "app", "tags": ["v0", "v1"]}, headers=link)

    world.registry.before = page
    await world.images.pull_tags(parse(f"{world.registry.host}/app"))
    assert sorted(name for image in world.images.list() for name in world.images.references(image.id)) == [
        f"{world.registry.host}/app:v{number}" for number in range(3)
    ]


async def test_unknown_images(world: World) -> None:
    with pytest.raises(NotFound, match=r"manifest for .*/app:nope not found: manifest unknown"):
        await world.pull("app:nope")
    with pytest.raises(Unavailable, match="does not answer"):
        await world.images.pull(parse("127.0.0.1:1/app:1"))


async def test_denied_in_dockers_words(world: World) -> None:
    error = {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}
    world.registry.before = lambda request: web.json_response(error, status=403)
    text = r"pull access denied for .*/app, repository does not exist or may require 'docker login': denied: requested"
    with pytest.raises(NotFound, match=text):
        await world.pull()


async def test_busy_registry_is_asked_again(world: World) -> None:
    world.registry.image(SMALL)
    answers = [web.Response(status=429, headers={"Retry-After": "0"}), web.Response(status=503)]
    world.registry.before = lambda request: answers.pop(0) if answers else None
    await world.pull()
    world.registry.before = lambda request: web.Response(status=429, headers={"Retry-After": "0"})
    with pytest.raises(ResourceExhausted, match="limits the rate"):
        await world.pull()


async def test_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.registry.image(random_layer("data", 300_000))

    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archives.os, "write", full)
        with pytest.raises(ResourceExhausted, match="No space left"):
            await world.pull()
    assert world.nothing()
    await world.pull()


async def test_same_image_twice_at_once(world: World) -> None:
    world.registry.image(random_layer("data", 300_000))
    digest = max(world.registry.blobs, key=lambda d: len(world.registry.blobs[d]))
    await asyncio.gather(world.pull(), world.pull(), world.pull())
    assert world.registry.fetched(digest) == [""]


async def test_pull_against_prune(world: World) -> None:
    world.registry.image(SMALL, random_layer("data", 400_000))
    half, go = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request, data: bytes) -> web.StreamResponse:
        if len(data) > 1000:
            half.set()
            await go.wait()
        return whole_or_part(request, data)

    world.registry.on_blob = wait
    pulling = asyncio.create_task(world.pull())
    await half.wait()
    for _ in range(500):
        if sha256(SMALL)[7:] in world.layers():
            break
        await asyncio.sleep(0.01)
    await world.images.prune(every=True)
    assert sha256(SMALL)[7:] in world.layers(), "a layer of the pull under way was collected"
    go.set()
    image = await pulling
    assert all(world.images.layers.has(layer, d) for layer, d in zip(image.layers, image.diff_ids, strict=True))


async def test_cancelled_pull_leaves_no_half(world: World) -> None:
    world.registry.image(random_layer("data", 400_000))
    half, over = asyncio.Event(), asyncio.Event()

    async def stall(request: web.Request, data: bytes) -> web.StreamResponse:
        if len(data) < 1000:
            return web.Response(body=data)
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:100_000])
        half.set()
        await over.wait()
        return response

    world.registry.on_blob = stall
    pulling = asyncio.create_task(world.pull())
    await half.wait()
    await asyncio.sleep(0.05)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert world.nothing()
    over.set()
    world.registry.on_blob = None
    await world.pull()


async def test_power_loss(world: World) -> None:
    """What may be half on disk is made anew from its blob, or forgotten when that is broken too."""
    world.registry.image(SMALL, tag="a")
    other = layer_tar({"b": b"broken"})
    world.registry.image(other, tag="b")
    whole = await world.pull("app:a")
    broken = await world.pull("app:b")
    (world.snapshotter.place / sha256(SMALL)[7:] / "etc/motd").write_bytes(b"")
    world.images.content.path(broken.layers[0].digest).write_bytes(b"")
    (world.images.content.root / "unsynced").write_text("another boot")
    await world.restart()
    await world.images.open()
    assert world.images.list() == [whole]
    assert (world.snapshotter.place / sha256(SMALL)[7:] / "etc/motd").read_bytes() == b"hello"
    assert sha256(other)[7:] not in world.layers()
    await world.pull("app:b")
    assert (world.snapshotter.place / sha256(other)[7:] / "b").read_bytes() == b"broken"


# -- credentials ---------------------------------------------------------------------------------


def guard(world: World, realm: str, token: str = "t0ken") -> None:
    """Ask for a bearer token."""

    def check(request: web.Request) -> web.Response | None:
        if request.path == "/token":
            basic = request.headers.get("Authorization", "")
            if basic and basic != "Basic dTpw":
                return web.json_response({"details": "incorrect username or password"}, status=401)
            return web.json_response({"token": token})
        if request.headers.get("Authorization") == f"Bearer {token}":
            return None
        challenge = f'Bearer realm="{realm}",service="reg",scope="repository:app:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    world.registry.before = check


async def test_bearer_token(world: World) -> None:
    world.registry.image(SMALL)
    guard(world, f"http://{world.registry.host}/token")
    await world.pull()
    await world.pull(auth=Credentials(username="u", password="p"))
    with pytest.raises(Unauthorized, match="refused the user name or the password"):
        await world.pull(auth=Credentials(username="u", password="wrong"))


async def test_basic(world: World) -> None:
    world.registry.image(SMALL)

    def check(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == "Basic dTpw":
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="reg"'})

    world.registry.before = check
    await world.pull(auth=Credentials(auth="dTpw"))
    with pytest.raises(Unauthorized):
        await world.pull(auth=Credentials(username="u", password="no"))
    with pytest.raises(NotFound, match="pull access denied"):
        await world.pull()


async def test_realm_of_another_kind_gets_nothing(world: World) -> None:
    world.registry.image(SMALL)
    guard(world, "ftp://evil.example/token")
    with pytest.raises(PermissionDenied):
        await world.pull(auth=Credentials(username="u", password="p"))


async def test_no_authorization_along_a_redirect(world: World) -> None:
    world.registry.image(SMALL)
    elsewhere = RegistryDouble()
    await elsewhere.start()
    try:
        elsewhere.blobs = world.registry.blobs

        async def redirect(request: web.Request, data: bytes) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(f"http://{elsewhere.host}{request.path}")

        world.registry.on_blob = redirect
        guard(world, f"http://{world.registry.host}/token")
        await world.pull(auth=Credentials(username="u", password="p"))
        assert elsewhere.requests
        assert all("Authorization" not in headers for _, _, headers in elsewhere.requests)

        def ask(request: web.Request) -> web.Response:
            challenge = f'Bearer realm="http://{elsewhere.host}/steal"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})

        elsewhere.before = ask
        await world.images.remove(f"{world.registry.host}/app")
        elsewhere.requests.clear()
        with pytest.raises(NotFound):
            await world.pull(auth=Credentials(username="u", password="p"))
        assert [path for _, path, _ in elsewhere.requests if "steal" in path] == []
    finally:
        await elsewhere.close()


async def test_redirects_without_end(world: World) -> None:
    def around(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.path})

    world.registry.before = around
    with pytest.raises(Unavailable, match="redirects without end"):
        await world.pull()


# -- names and removal ---------------------------------------------------------------------------


async def test_get_in_every_form(world: World) -> None:
    world.registry.image(SMALL)
    image = await world.pull()
    for name in (image.id, image.id[7:], image.id[7:19], image.id[:19], f"{world.registry.host}/app"):
        assert world.images.get(name) == image
    with pytest.raises(NotFound, match=r"^No such image: nope:latest$"):
        world.images.get("nope")
    with pytest.raises(NotFound, match=f"^No such image: sha256:{'0' * 64}$"):
        world.images.get("sha256:" + "0" * 64)
    with pytest.raises(InvalidArgument, match="invalid reference format"):
        world.images.get("UPPER case")


async def test_untag_then_delete(world: World) -> None:
    digest = world.registry.image(SMALL)
    image = await world.pull()
    world.images.tag(image.id, "mine", "1")
    assert world.images.references(image.id) == [f"{world.registry.host}/app:latest", "mine:1"]
    done = await world.images.remove(f"{world.registry.host}/app")
    assert done == [
        {"Untagged": f"{world.registry.host}/app:latest"},
        {"Untagged": f"{world.registry.host}/app@{digest}"},
    ]
    assert await world.images.remove("mine:1") == [
        {"Untagged": "mine:1"},
        {"Deleted": image.id},
        {"Deleted": sha256(SMALL)},
    ]
    assert world.nothing()
    assert world.images.content.digests() == []


async def test_conflicts_in_dockers_words(world: World) -> None:
    world.registry.image(SMALL)
    image = await world.pull()
    name, short = f"{world.registry.host}/app:latest", image.id[7:19]
    world.used[image.id] = ["ab" * 32]
    with pytest.raises(Conflict) as caught:
        await world.images.remove(name)
    assert caught.value.message == (
        f'conflict: unable to remove repository reference "{name}" (must force) - '
        f"container {'ab' * 6} is using its referenced image {short}"
    )
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped container"):
        await world.images.remove(image.id)
    world.running.add("ab" * 32)
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image is being used by running container"):
        await world.images.remove(image.id, force=True)
    world.used.clear()
    world.images.tag(image.id, "second")
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is referenced in multiple repositories"):
        await world.images.remove(image.id[7:20])
    assert {"Deleted": image.id} in await world.images.remove(image.id, force=True)


async def test_forced_removal_keeps_the_layers_of_a_container(world: World) -> None:
    world.registry.image(SMALL)
    image = await world.pull()
    await world.snapshotter.prepare("c1", image.diff_ids)
    world.used[image.id] = ["ab" * 32]
    await world.images.remove(image.id, force=True)
    assert world.layers() == [sha256(SMALL)[7:]]
    await world.snapshotter.remove("c1")
    await world.images.collect()
    assert world.layers() == []


async def test_shared_layer_stays(world: World) -> None:
    world.registry.image(SMALL, tag="a")
    world.registry.image(SMALL, layer_tar({"b": b"x"}), tag="b")
    await world.pull("app:a")
    await world.pull("app:b")
    await world.images.remove(f"{world.registry.host}/app:b")
    assert world.layers() == [sha256(SMALL)[7:]]


async def test_prune(world: World) -> None:
    world.registry.image(SMALL)
    old = await world.pull()
    world.registry.image(layer_tar({"b": b"x"}))
    await world.pull()
    assert world.images.references(old.id) == []
    before = sum(world.images.content.sizes()[0].values())
    done, freed = await world.images.prune()
    assert {"Deleted": old.id} in done
    assert freed == 5 + before - sum(world.images.content.sizes()[0].values()) > 500
    assert len(world.images.list()) == 1
    await world.images.prune(every=True)
    assert world.nothing()


async def test_history(world: World) -> None:
    steps = [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "RUN"}]
    world.registry.image(SMALL, layer_tar({"b": b"xyz"}), history=steps)
    image = await world.pull()
    found = world.images.history(image.id)
    assert [(step.created_by, step.size) for step in found] == [("RUN", 3), ("ENV", 0), ("ADD", 5)]
    assert (found[0].id, found[1].id) == (image.id, "<missing>")

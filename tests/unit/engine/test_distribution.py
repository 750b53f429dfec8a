"""What the OCI distribution specification 1.1 expects of clients, beyond what other tests of pull and push say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from tests.image_world import World
from tests.registry_double import INDEX, MANIFEST, RegistryDouble, layer_tar, sha256

from bastide.images.reference import parse
from bastide.images.registry import REFERRER_LIMIT
from bastide.model.errors import InvalidArgument, NotFound, Unavailable, Unsupported

SMALL = layer_tar({"a": b"small"})
EMPTY = "application/vnd.oci.empty.v1+json"


class Registry:
    """The write half, and the referrers call where `lists` says so."""

    def __init__(self, world: World, lists: bool = True) -> None:
        self.double, self.lists, self.pages = world.registry, lists, 0
        self.place = "/v2/{name}/blobs/uploads/{number}?state=a%2Fb"
        self.sent: list[str] = []
        self.mounts = True
        self._data: dict[str, bytes] = {}
        self.double.write = self.take
        self.double.before = self.before

    def before(self, request: web.Request) -> web.Response | None:
        if request.method == "GET" and "/referrers/" in request.path and self.lists:
            return self.listed(request)
        if request.method == "HEAD" and "/blobs/" in request.path:
            known = request.path.rpartition("/")[2] in self.double.blobs
            return web.Response(status=200 if known else 404)
        return None

    def listed(self, request: web.Request) -> web.Response:
        digest = request.path.rpartition("/")[2]
        found = [
            {"mediaType": MANIFEST, "digest": sha256(data), "size": len(data)}
            for data in {data for data, _ in self.double.manifests.values()}
            if (json.loads(data).get("subject") or {}).get("digest") == digest
        ]
        page = int(request.query.get("page", "0"))
        headers = {"Content-Type": INDEX}
        if self.pages and page + 1 < len(found):
            headers["Link"] = f'<{request.path}?page={page + 1}>; rel="next"'
        shown = found[page : page + 1] if self.pages else found
        return web.Response(
            body=json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": shown}), headers=headers
        )

    async def take(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/v2/").partition("/blobs/")[0]
        if "/manifests/" in request.path:
            data = await request.read()
            tag = request.path.rpartition("/")[2]
            self.sent.append(tag)
            self.double.manifests[tag] = self.double.manifests[sha256(data)] = (data, request.content_type)
            noted = self.lists and json.loads(data).get("subject")
            return web.Response(status=201, headers={"OCI-Subject": "noted"} if noted else {})
        if request.method == "POST":
            if "mount" in request.query and self.mounts and request.query["mount"] in self.double.blobs:
                return web.Response(status=201)
            number = len(self.sent) + len(self._data)
            self._data[str(number)] = b""
            return web.Response(status=202, headers={"Location": self.place.format(name=name, number=number)})
        assert request.query["state"] == "a/b", "the place of an upload is taken as it was given"
        if request.method == "PATCH":
            self._data[request.path.rpartition("/")[2]] = await request.read()
            return web.Response(status=202, headers={"Location": str(request.rel_url)})
        data = self._data[request.path.rpartition("/")[2]]
        assert sha256(data) == request.query["digest"]
        self.double.blobs[request.query["digest"]] = data
        self.sent.append(request.query["digest"])
        return web.Response(status=201)


def referrer(double: RegistryDouble, about: str, content: bytes, *tags: str, **more: Any) -> str:
    """An artifact that says something about a manifest; gives its digest."""
    data = double.manifests[about][0]
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.seal",
        "config": {"mediaType": EMPTY, **double.put(b"{}")},
        "layers": [{"mediaType": "text/plain", **double.put(content)}],
        "subject": {"mediaType": MANIFEST, "digest": about, "size": len(data)},
        "annotations": {"about": content.decode()},
    } | more
    return double.document(document, MANIFEST, *tags)


async def pull(world: World, name: str = "app:latest") -> None:
    await world.images.pull_any(parse(f"{world.registry.host}/{name}"), referrers=True)


async def push(world: World, name: str = "copy") -> None:
    image = world.images.list()[0]
    world.images.tag(image.id, f"{world.registry.host}/{name}", "1")
    await world.images.push(f"{world.registry.host}/{name}", "1", None)


# -- manifests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [None, "sha512:" + "0" * 128, "nonsense"])
async def test_no_digest_that_could_be_checked(world: World, named: str | None) -> None:
    digest = world.registry.image(SMALL)
    data, kind = world.registry.manifests[digest]
    headers = {"Content-Type": kind} | ({"Docker-Content-Digest": named} if named else {})
    world.registry.before = lambda request: (
        web.Response(body=data, headers=headers) if "/manifests/" in request.path else None
    )
    assert (await world.pull()).target.digest == digest


async def test_a_digest_that_is_another(world: World) -> None:
    data, kind = world.registry.manifests[world.registry.image(SMALL)]
    headers = {"Content-Type": kind, "Docker-Content-Digest": sha256(b"other")}
    world.registry.before = lambda request: (
        web.Response(body=data, headers=headers) if "/manifests/" in request.path else None
    )
    with pytest.raises(InvalidArgument, match=r"says that latest is sha256:.*, but sha256:.* came"):
        await world.pull()
    assert world.nothing()


async def test_every_kind_of_manifest_is_accepted(world: World) -> None:
    world.registry.image(SMALL)
    await world.pull()
    asked = next(headers["Accept"] for _, path, headers in world.registry.requests if "/manifests/" in path)
    assert {MANIFEST, INDEX} < set(asked.split(", "))
    assert "schema1" not in asked
    assert len(asked.split(", ")) == 4


@pytest.mark.parametrize("body", ["", "404 page not found", '{"errors": []}', '{"errors": null}', "[]", "{"])
async def test_not_found_without_a_code(world: World, body: str) -> None:
    world.registry.before = lambda request: (
        web.Response(status=404, text=body) if "/manifests/" in request.path else None
    )
    with pytest.raises(NotFound, match=r"manifest for .*/app:latest not found"):
        await world.pull()


# -- tags ------------------------------------------------------------------------------------------


def pages(link: Callable[[World], str], world: World) -> Callable[[web.Request], web.Response | None]:
    def before(request: web.Request) -> web.Response | None:
        if not request.path.endswith("/tags/list"):
            return None
        if request.query.get("last") == "one":
            return web.json_response({"name": "app", "tags": ["two"]})
        return web.json_response({"name": "app", "tags": ["one"]}, headers={"Link": f'<{link(world)}>; rel="next"'})

    return before


@pytest.mark.parametrize(
    "link",
    [
        lambda world: "/v2/app/tags/list?n=1&last=one",
        lambda world: "list?n=1&last=one",
        lambda world: f"http://{world.registry.host}/v2/app/tags/list?n=1&last=one",
    ],
    ids=["absolute path", "relative path", "whole address"],
)
async def test_tags_on_several_pages(world: World, link: Callable[[World], str]) -> None:
    world.registry.image(SMALL, tag="one")
    world.registry.image(layer_tar({"b": b""}), tag="two")
    world.registry.before = pages(link, world)
    await world.images.pull_tags(parse(f"{world.registry.host}/app"))
    assert {name for image in world.images.list() for name in world.images.references(image.id)} == {
        f"{world.registry.host}/app:one",
        f"{world.registry.host}/app:two",
    }


async def test_tags_that_go_on_elsewhere_are_refused(world: World) -> None:
    world.registry.before = pages(lambda _: "http://169.254.169.254/v2/app/tags/list?last=one", world)
    with pytest.raises(InvalidArgument, match="more than"):
        await world.images.pull_tags(parse(f"{world.registry.host}/app"))


# -- uploads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
async def test_the_place_of_an_upload_is_taken_as_it_is_given(world: World, whole: bool) -> None:
    registry = Registry(world)
    if whole:
        registry.place = f"http://{world.registry.host}{registry.place}"
    world.registry.image(SMALL)
    await world.pull()
    world.registry.blobs.clear()
    await push(world)
    assert len(world.registry.blobs) == 2


async def test_an_upload_without_a_place(world: World) -> None:
    Registry(world)
    world.registry.image(SMALL)
    await world.pull()
    world.registry.blobs.clear()

    async def nowhere(request: web.Request) -> web.Response:
        return web.Response(status=202)

    world.registry.write = nowhere
    with pytest.raises(Unavailable, match="named no place for an upload"):
        await push(world)


async def test_a_mount_that_is_declined_becomes_an_upload(world: World) -> None:
    registry = Registry(world)
    world.registry.image(SMALL)
    await world.pull()
    registry.mounts = False
    heads = registry.before
    world.registry.before = lambda request: web.Response(status=404) if request.method == "HEAD" else heads(request)
    await push(world)
    assert len([name for name in registry.sent if name.startswith("sha256:")]) == 2


async def test_a_registry_that_cannot_be_asked_for_blobs_gets_them(world: World) -> None:
    registry = Registry(world)
    registry.mounts = False
    world.registry.image(SMALL)
    await world.pull()
    world.registry.before = lambda request: web.Response(status=405) if request.method == "HEAD" else None
    await push(world)
    assert len([name for name in registry.sent if name.startswith("sha256:")]) == 2


# -- artifacts and referrers -----------------------------------------------------------------------


@pytest.mark.parametrize("paged", [0, 1])
async def test_referrers_are_listed_kept_and_sent(world: World, paged: int) -> None:
    registry = Registry(world)
    registry.pages = paged
    subject = world.registry.image(SMALL)
    made = {referrer(world.registry, subject, b"one"), referrer(world.registry, subject, b"two")}
    await pull(world)
    image = world.images.list()[0]
    assert {artifact.descriptor.digest for artifact in world.images.referrers(image)} == made
    world.registry.blobs.clear()
    await push(world)
    assert made <= set(registry.sent)
    assert subject.replace(":", "-") not in registry.sent, "the registry noted them itself"
    await world.images.remove(image.id, force=True)
    assert not world.images.artifacts.all()
    assert world.images.content.digests() == []


async def test_a_registry_without_the_call_keeps_them_under_a_tag(world: World) -> None:
    registry = Registry(world, lists=False)
    subject = world.registry.image(SMALL)
    made = referrer(world.registry, subject, b"one")
    tag = subject.replace(":", "-")
    await pull(world)
    assert not world.images.artifacts.all()
    entry = {"mediaType": MANIFEST, "digest": made, "size": len(world.registry.manifests[made][0])}
    world.registry.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX, tag)
    await pull(world)
    del world.registry.manifests[tag]
    for _ in range(2):
        await push(world)
        (listed,) = json.loads(world.registry.manifests[tag][0])["manifests"]
        assert listed == entry | {"artifactType": "application/vnd.example.seal", "annotations": {"about": "one"}}
    assert registry.sent.count(tag) == 1


async def test_a_referrer_of_something_else(world: World) -> None:
    Registry(world)
    subject = world.registry.image(SMALL)
    other = world.registry.image(layer_tar({"b": b""}), tag="other")
    made = referrer(world.registry, other, b"stolen")
    entry = {"mediaType": MANIFEST, "digest": made, "size": 1}
    world.registry.before = lambda request: (
        web.json_response({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
        if "/referrers/" in request.path
        else None
    )
    with pytest.raises(InvalidArgument, match=f"does not refer to {subject}"):
        await pull(world)
    assert not world.images.artifacts.all()


async def test_referrers_without_end(world: World) -> None:
    world.registry.image(SMALL)
    entries = [{"mediaType": MANIFEST, "digest": sha256(str(n).encode()), "size": 1} for n in range(REFERRER_LIMIT + 1)]
    world.registry.before = lambda request: (
        web.json_response({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        if "/referrers/" in request.path
        else None
    )
    with pytest.raises(InvalidArgument, match="more than 100 referrers"):
        await pull(world)


async def test_referrers_in_a_ring_end(world: World) -> None:
    Registry(world)
    subject = world.registry.image(SMALL)
    chain = subject
    for number in range(5):
        chain = referrer(world.registry, chain, str(number).encode())
    await pull(world)
    assert len(world.images.artifacts.all()) == 5


async def test_no_list_of_referrers(world: World) -> None:
    world.registry.image(SMALL)
    data, _ = world.registry.manifests["latest"]
    world.registry.before = lambda request: web.Response(body=data) if "/referrers/" in request.path else None
    with pytest.raises(InvalidArgument, match="gave no valid list of the referrers"):
        await pull(world)


async def test_an_index_of_artifacts(world: World) -> None:
    registry = Registry(world)
    base = world.registry.image(SMALL, tag="base")
    parts = [referrer(world.registry, base, word, subject=None) for word in (b"a", b"b")]
    entries = [
        {"mediaType": MANIFEST, "digest": part, "size": len(world.registry.manifests[part][0])} for part in parts
    ]
    digest = world.registry.document(
        {"schemaVersion": 2, "mediaType": INDEX, "artifactType": "application/vnd.example.set", "manifests": entries},
        INDEX,
        "set",
    )
    await pull(world, "app:set")
    artifact = world.images.artifacts.get(f"{world.registry.host}/app:set")
    assert (artifact.descriptor.digest, artifact.artifact_type) == (digest, "application/vnd.example.set")
    world.registry.blobs.clear()
    await world.images.push(f"{world.registry.host}/app", "set", None)
    assert [name for name in registry.sent if name in (*parts, "set")] == [*parts, "set"]
    with pytest.raises(Unsupported, match="is not an image but an artifact"):
        world.images.get(f"{world.registry.host}/app:set")
    await world.restart()
    assert world.images.artifacts.get(digest) == artifact
    await world.images.artifacts.remove(digest)
    assert world.images.content.digests() == []


@pytest.mark.parametrize(
    "layer",
    [
        {"mediaType": "text/plain", "digest": sha256(b"x"), "size": 1, "urls": ["http://169.254.169.254/"]},
        {"mediaType": "text/plain", "digest": "sha256:../../../etc/passwd", "size": 1},
        {"mediaType": "text/plain", "digest": sha256(b"seal"), "size": 3},
        {"mediaType": "text/plain", "digest": sha256(b"seal"), "size": -1},
    ],
    ids=["elsewhere", "no digest", "longer", "negative"],
)
async def test_hostile_artifacts(world: World, layer: dict[str, Any]) -> None:
    base = world.registry.image(SMALL, tag="base")
    world.registry.put(b"seal")
    referrer(world.registry, base, b"seal", "bad", layers=[layer], subject=None)
    with pytest.raises(InvalidArgument):
        await pull(world, "app:bad")
    assert not world.images.artifacts.all()

"""Signatures and the policy that asks for them, with real keys, and mirrors that lie (ATTACKS 6 and 7)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.image_world import World
from tests.registry_double import MANIFEST, RegistryDouble, layer_tar, sha256

from bastide.images.auth import Credentials
from bastide.images.reference import parse
from bastide.model.errors import InvalidArgument, PermissionDenied

SMALL = layer_tar({"a": b"signed"})
COSIGN = "application/vnd.dev.cosign.simplesigning.v1+json"


def claim(digest: str, name: str, kind: str = "atomic container signature") -> bytes:
    identity, image = {"docker-reference": name}, {"docker-manifest-digest": digest}
    return json.dumps({"critical": {"identity": identity, "image": image, "type": kind}, "optional": {}}).encode()


class Signer:
    """An OpenPGP key in a home of its own."""

    def __init__(self, home: Path, name: str) -> None:
        # gpg's agent wants a short path for its socket.
        self.home = Path("/tmp") / f"bst-gpg-{os.getpid()}-{name}"
        self.home.mkdir(mode=0o700)
        self.environment = {"GNUPGHOME": str(self.home), "PATH": "/usr/bin:/bin"}
        past = ["--faked-system-time", "20250101T000000"]
        self._gpg(*past, "--quick-generate-key", f"{name}@example", "ed25519", "sign", "2050-01-01")
        self.public = home / f"{name}.asc"
        self.public.write_bytes(self._gpg("--armor", "--export"))

    def _gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *arguments]
        return subprocess.run(argv, input=stdin, env=self.environment, check=True, capture_output=True).stdout

    def sign(self, payload: bytes, *more: str) -> bytes:
        return self._gpg(*more, "--sign", stdin=payload)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self.environment, check=False)
        # The agent takes its sockets away meanwhile.
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Signer, Signer]]:
    home = tmp_path_factory.mktemp("keys")
    pair = Signer(home, "trusted"), Signer(home, "stranger")
    yield pair
    for signer in pair:
        signer.close()


def demand(world: World, *requirements: dict[str, Any], attachments: bool = False) -> Path:
    """A policy for the world's registry; gives the folder of its signatures."""
    folder = world.place / "containers"
    (folder / "registries.d").mkdir(parents=True, exist_ok=True)
    transports = {"docker": {world.registry.host: list(requirements)}}
    (folder / "policy.json").write_text(json.dumps({"default": [{"type": "reject"}], "transports": transports}))
    place = world.place / "signatures"
    (folder / "registries.d" / "default.yaml").write_text(
        f"# where signatures are\ndefault-docker:\n  lookaside: file://{place}\n"
        f"docker:\n  {world.registry.host}:\n    use-sigstore-attachments: {str(attachments).lower()}\n"
    )
    return place


def leave(place: Path, world: World, digest: str, *found: bytes) -> None:
    """Put signatures of a manifest where they are looked for."""
    folder = place / world.registry.host / f"app@{digest.replace(':', '=')}"
    folder.mkdir(parents=True)
    for number, data in enumerate(found, 1):
        (folder / f"signature-{number}").write_bytes(data)


def signed_by(signer: Signer, **identity: str) -> dict[str, Any]:
    wanted = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(signer.public)}
    return wanted | ({"signedIdentity": identity} if identity else {})


async def test_signed_image_is_taken_and_shown(world: World, signers: tuple[Signer, Signer]) -> None:
    trusted, stranger = signers
    digest = world.registry.image(SMALL)
    place = demand(world, signed_by(trusted))
    right = claim(digest, f"{world.registry.host}/app:latest")
    leave(place, world, digest, stranger.sign(right), trusted.sign(right))
    image = await world.pull()
    assert image.verified.startswith("signedBy ")
    assert image.insecure_options == []


async def test_what_is_refused(world: World, signers: tuple[Signer, Signer]) -> None:
    trusted, stranger = signers
    digest = world.registry.image(SMALL)
    name = f"{world.registry.host}/app:latest"
    right, other = claim(digest, name), claim("sha256:" + "0" * 64, name)
    cases = {
        "a signature was required, but no signature exists": [],
        "not by a trusted key": [stranger.sign(right)],
        "is for another image": [trusted.sign(other)],
        "is for the name": [trusted.sign(claim(digest, f"{world.registry.host}/app:old"))],
        "malformed payload": [trusted.sign(b"{}")],
        "by a trusted key": [right],
        "trusted key": [trusted.sign(right)[:-9]],
    }
    for text, found in cases.items():
        place = demand(world, signed_by(trusted))
        shutil.rmtree(place, ignore_errors=True)
        leave(place, world, digest, *found)
        with pytest.raises(PermissionDenied, match=text):
            await world.pull()
    assert world.nothing()


async def test_expired_signature(world: World, signers: tuple[Signer, Signer]) -> None:
    trusted, _ = signers
    digest = world.registry.image(SMALL)
    place = demand(world, signed_by(trusted))
    payload = claim(digest, f"{world.registry.host}/app:latest")
    leave(
        place,
        world,
        digest,
        trusted.sign(payload, "--default-sig-expire", "seconds=1", "--faked-system-time", "20260101T000000"),
    )
    with pytest.raises(PermissionDenied, match="not by a trusted key"):
        await world.pull()


OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00.5+01:00"


async def test_an_older_signed_image_does_not_take_a_tag_back(world: World, signers: tuple[Signer, Signer]) -> None:
    trusted, _ = signers
    name = f"{world.registry.host}/app:latest"
    place = demand(world, signed_by(trusted))
    old = world.registry.image(SMALL, created=OLD)
    leave(place, world, old, trusted.sign(claim(old, name)))
    await world.pull()
    new = world.registry.image(SMALL, layer_tar({"b": b"mended"}), created=NEW)
    leave(place, world, new, trusted.sign(claim(new, name)))
    mended = await world.pull()
    # The registry serves what it had, with the signature that it had.
    world.registry.image(SMALL, created=OLD)
    await world.restart()
    with pytest.raises(PermissionDenied, match=rf"would be rolled back: .*{OLD}.*`bastide rmi {name}`") as told:
        await world.pull()
    assert "\n" not in str(told.value)
    assert world.images.get(name).id == mended.id
    by_digest = parse(f"{world.registry.host}/app@{old}")
    assert (await world.images.pull(by_digest)).created == OLD
    assert world.images.get(name).id == mended.id
    await world.images.remove(name)
    assert (await world.pull()).created == OLD


@pytest.mark.parametrize("verified", [True, False])
async def test_images_nobody_vouched_for_go_back_and_forth(
    world: World, signers: tuple[Signer, Signer], verified: bool
) -> None:
    """Without a policy that asks for signatures a tag moves as its registry says, as docker's does."""
    trusted, _ = signers
    new = world.registry.image(SMALL, created=NEW)
    place = demand(world, signed_by(trusted) if verified else {"type": "insecureAcceptAnything"})
    leave(place, world, new, trusted.sign(claim(new, f"{world.registry.host}/app:latest")))
    await world.pull()
    world.registry.image(SMALL, created=OLD)
    demand(world, {"type": "insecureAcceptAnything"})
    assert (await world.pull()).created == OLD


async def test_asked_for_by_name(world: World, signers: tuple[Signer, Signer]) -> None:
    world.registry.image(SMALL)
    demand(world, signed_by(signers[0]))
    reference = parse(f"{world.registry.host}/app")
    with pytest.raises(InvalidArgument, match="unknown insecure option"):
        await world.images.pull(reference, insecure=["everything"])
    image = await world.images.pull(reference, insecure=["image"])
    assert image.insecure_options == ["image"]
    assert image.verified == ""


async def test_rejected_by_default(world: World) -> None:
    world.registry.image(SMALL)
    demand(world, {"type": "reject"})
    with pytest.raises(PermissionDenied, match="is rejected by"):
        await world.pull()
    with pytest.raises(PermissionDenied, match="images from a docker-archive are rejected"):
        world.images.check_archive("docker-archive")


# -- mirrors (ATTACKS 6) -------------------------------------------------------------------------


@pytest.fixture
async def mirror(world: World) -> AsyncIterator[RegistryDouble]:
    """A mirror of the world's registry with an image of its own under the same name."""
    made = RegistryDouble()
    await made.start()
    made.image(layer_tar({"a": b"not what was asked for"}))
    folder = world.place / "containers"
    folder.mkdir(exist_ok=True)
    (folder / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{world.registry.host}"\n[[registry.mirror]]\nlocation = "{made.host}"\n'
    )
    yield made
    await made.close()


async def test_a_mirror_that_gives_something_else_for_a_digest(world: World, mirror: RegistryDouble) -> None:
    digest = world.registry.image(SMALL)
    mirror.manifests[digest] = mirror.manifests["latest"]
    image = await world.pull(f"app@{digest}")
    assert image.manifest.digest == digest
    assert any(path.endswith(digest) for _, path, _ in mirror.requests), "the mirror was asked first"


async def test_a_mirror_that_gives_other_layers(world: World, mirror: RegistryDouble) -> None:
    world.registry.image(SMALL)
    mirror.manifests = dict(world.registry.manifests)
    mirror.blobs = {digest: bytes(len(data)) for digest, data in world.registry.blobs.items()}
    with pytest.raises(InvalidArgument, match="does not match its digest"):
        await world.pull()
    assert world.nothing()


async def test_a_mirrors_image_needs_the_signature_of_its_owner(
    world: World, mirror: RegistryDouble, signers: tuple[Signer, Signer]
) -> None:
    """A tag is what a mirror says it is, unless a policy asks for more."""
    trusted, stranger = signers
    digest = sha256(mirror.manifests["latest"][0])
    place = demand(world, signed_by(trusted))
    leave(place, world, digest, stranger.sign(claim(digest, f"{world.registry.host}/app:latest")))
    with pytest.raises(PermissionDenied, match="not by a trusted key"):
        await world.pull()
    assert world.nothing()


async def test_a_mirror_gets_no_credentials(world: World, mirror: RegistryDouble) -> None:
    mirror.before = lambda request: web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="mine"'})
    world.registry.image(SMALL)
    await world.pull(auth=Credentials(username="u", password="p"))
    assert mirror.requests
    assert all("Authorization" not in headers for _, _, headers in mirror.requests)


# -- sigstore ------------------------------------------------------------------------------------


def make_pem(home: Path) -> tuple[Path, Path]:
    """A private and a public key of the kind that cosign makes."""
    secret, public = home / "key.pem", home / "pub.pem"
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", "genpkey", *curve, "-out", secret], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", secret, "-pubout", "-out", public], check=True, capture_output=True)
    return secret, public


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pem(tmp_path_factory.mktemp("cosign"))


def attach(world: World, digest: str, payload: bytes, secret: Path) -> None:
    """What `cosign sign --key` leaves in a registry."""
    raw = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", secret], input=payload, check=True, capture_output=True
    ).stdout
    note = {"dev.cosignproject.cosign/signature": base64.b64encode(raw).decode()}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **world.registry.put(b"{}")},
        "layers": [{"mediaType": COSIGN, "annotations": note, **world.registry.put(payload)}],
    }
    world.registry.document(manifest, MANIFEST, digest.replace(":", "-") + ".sig")


async def test_sigstore(world: World, pem: tuple[Path, Path]) -> None:
    secret, public = pem
    digest = world.registry.image(SMALL)
    wanted = {"type": "sigstoreSigned", "keyPath": str(public), "signedIdentity": {"type": "matchRepository"}}
    demand(world, wanted, attachments=True)
    with pytest.raises(PermissionDenied, match="no signature exists"):
        await world.pull()
    name, kind = f"{world.registry.host}/app", "cosign container image signature"
    attach(world, digest, claim("sha256:" + "1" * 64, name, kind), secret)
    with pytest.raises(PermissionDenied, match="another image"):
        await world.pull()
    attach(world, digest, claim(digest, f"{world.registry.host}/other", kind), secret)
    with pytest.raises(PermissionDenied, match="for the name"):
        await world.pull()
    attach(world, digest, claim(digest, name, kind), secret)
    assert (await world.pull()).verified == "sigstoreSigned key 1"
    demand(world, wanted, attachments=False)
    with pytest.raises(PermissionDenied, match="no signature exists"):
        await world.pull()


async def test_sigstore_by_another_key(world: World, pem: tuple[Path, Path], tmp_path: Path) -> None:
    digest = world.registry.image(SMALL)
    other, _ = make_pem(tmp_path)
    wanted = {"type": "sigstoreSigned", "keyPath": str(pem[1]), "signedIdentity": {"type": "matchRepository"}}
    demand(world, wanted, attachments=True)
    attach(world, digest, claim(digest, f"{world.registry.host}/app", "cosign container image signature"), other)
    with pytest.raises(PermissionDenied, match="not by a trusted key"):
        await world.pull()

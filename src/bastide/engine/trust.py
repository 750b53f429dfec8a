"""Whether an image may be taken: the host's policy held against the signatures that can be found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yarl import URL

from bastide.images import manifest as documents
from bastide.images import signatures
from bastide.images.digest import digest_of
from bastide.images.lookaside import Lookaside
from bastide.images.manifest import Manifest
from bastide.images.policy import Policy, Requirement, identity_fits, parse_claim
from bastide.images.reference import Reference
from bastide.images.registries import Registries
from bastide.images.registry import RegistryError, Repository, fetch
from bastide.model.errors import InvalidArgument, NotFound, PermissionDenied

_POLICY = "policy.json"
UNVERIFIED = "image"
"""The word of `--insecure-options` that asks for an image without the checks of the policy."""


def check_words(words: Sequence[str]) -> None:
    """The words of `--insecure-options`. Raises InvalidArgument."""
    if unknown := [word for word in words if word != UNVERIFIED]:
        raise InvalidArgument(f"unknown insecure option {unknown[0]!r}: {UNVERIFIED!r} is the only one")


def check_archive(transport: str, folder: Path) -> None:
    """An image from an archive carries no signature that could be checked. Raises PermissionDenied."""
    path = folder / _POLICY
    for requirement in Policy(path).archive(transport):
        if requirement.type != "insecureAcceptAnything":
            raise PermissionDenied(f"images from a {transport} are rejected by {path}")


class Trust:
    """The checks of one pull, by `policy.json` and `registries.d` in a folder."""

    def __init__(self, reference: Reference, folder: Path) -> None:
        self._reference, self._folder = reference, folder
        self._path, self._places = folder / _POLICY, folder / "registries.d"
        self._requirements = Policy(self._path).docker(reference)

    async def check(self, repository: Repository, digests: Sequence[str]) -> str:
        """That every requirement is fulfilled by a signature of one of `digests`; says which, "" when none was needed.

        `digests` are the manifest's and that of the index which names it. Raises PermissionDenied.
        """
        proofs = []
        for requirement in self._requirements:
            if requirement.type == "reject":
                raise PermissionDenied(f"{self._reference.familiar} is rejected by {self._path}")
            if requirement.type != "insecureAcceptAnything":
                proofs.append(await self._prove(requirement, repository, digests))
        return ", ".join(proofs)

    async def _prove(self, requirement: Requirement, repository: Repository, digests: Sequence[str]) -> str:
        keys = requirement.keys()
        problem = PermissionDenied("a signature was required, but no signature exists")
        simple = requirement.type == "signedBy"
        for digest in digests:
            found = self._simple(digest) if simple else self._attached(repository, digest)
            async for payload, signature in found:
                try:
                    if simple:
                        payload, signer = await signatures.open_pgp(payload, keys)
                    else:
                        signer = f"key {await signatures.sigstore(payload, signature, keys) + 1}"
                    self._match(requirement, payload, digest)
                except PermissionDenied as error:
                    problem = error
                else:
                    return f"{requirement.type} {signer}"
        raise PermissionDenied(f"{self._reference.familiar} is rejected by {self._path}: {problem}") from problem

    def _match(self, requirement: Requirement, payload: bytes, digest: str) -> None:
        claim = parse_claim(payload)
        if claim.digest != digest:
            raise PermissionDenied("signature is for another image")
        if not identity_fits(requirement.signed_identity, self._reference, claim.reference):
            raise PermissionDenied(f"signature is for the name {claim.reference[:200]!r}")

    async def _simple(self, digest: str) -> AsyncIterator[tuple[bytes, str]]:
        """Simple signatures beside the registry, `signature-1` and on."""
        base = Lookaside(self._places).url(self._reference, digest)
        for number in range(1, signatures.COUNT_LIMIT + 1) if base else ():
            data = await self._read(f"{base}/signature-{number}")
            if data is None:
                return
            yield data, ""

    async def _attached(self, repository: Repository, digest: str) -> AsyncIterator[tuple[bytes, str]]:
        """Sigstore's signatures in the registry, under a tag made of the digest."""
        if not Lookaside(self._places).attachments(self._reference):
            return
        try:
            data, kind = await repository.manifest(digest.replace(":", "-") + ".sig")
        except (RegistryError, NotFound):
            return
        document = documents.parse(data, kind)
        if not isinstance(document, Manifest):
            return
        for layer in document.layers[: signatures.COUNT_LIMIT]:
            note = (layer.annotations or {}).get(signatures.COSIGN_NOTE, "")
            if layer.media_type == signatures.COSIGN_TYPE and layer.size <= signatures.SIGNATURE_LIMIT and note:
                payload = b"".join([chunk async for chunk in repository.blob(layer.digest, layer.size)])
                if digest_of(payload) == layer.digest:
                    yield payload, note

    async def _read(self, url: str) -> bytes | None:
        """A signature at a `file:` or `https:` URL; None when there is none. Raises InvalidArgument, Unavailable."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            try:
                return Path(unquote(parts.path)).read_bytes()[: signatures.SIGNATURE_LIMIT]
            except OSError:
                return None
        if parts.scheme != "https":
            raise InvalidArgument(f"signatures at {url[:200]!r} cannot be read: file: and https: are known")
        try:
            return await fetch(Registries(self._folder), URL(url), {}, signatures.SIGNATURE_LIMIT)
        except NotFound:
            return None

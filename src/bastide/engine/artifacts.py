"""Artifacts: what registries hold that is no container image, kept as it came; and what refers to images.

A referrer (a signature, a list of parts) names its subject by digest. It is kept for as long as that is here, and
goes with it to other registries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from bastide.engine.layers import Lease
from bastide.engine.state import Store
from bastide.host.syscalls import blocking
from bastide.images import manifest as documents
from bastide.images.digest import check_digest, digest_of
from bastide.images.manifest import Index, Manifest
from bastide.images.reference import Reference, parse
from bastide.images.registry import REFERRER_LIMIT, Repository
from bastide.model.errors import InvalidArgument, NotFound
from bastide.model.image import Artifact, Descriptor

if TYPE_CHECKING:
    from bastide.engine.images import Images

_DOCUMENTS = 100
"""Manifests that an index of artifacts may name."""
_PARALLEL = 3
Told = Callable[[Descriptor, str], None]
"""Takes a blob and what happens to it."""


class Named(msgspec.Struct, frozen=True):
    """What a reference points at."""

    digest: str


class Artifacts:
    """The artifacts of this daemon."""

    def __init__(self, images: Images, store: Store) -> None:
        self._images, self._store = images, store
        self._artifacts = store.table("artifacts", Artifact)
        self._names = store.table("artifact_references", Named)

    # -- look ----------------------------------------------------------------------------------

    def find(self, name: Reference) -> Artifact | None:
        """The artifact of that name, None when there is none."""
        named = self._names.get(str(name.tagged()))
        return self._artifacts.get(named.digest) if named else None

    def get(self, name: str) -> Artifact:
        """The artifact of that name or digest. Raises NotFound, InvalidArgument."""
        found = self._artifacts.get(name) if name.startswith("sha256:") else self.find(parse(name))
        if found is None:
            raise NotFound(f"No such artifact: {name}")
        return found

    def all(self) -> Sequence[Artifact]:
        """All artifacts, referrers among them."""
        return self._artifacts.values()

    def names(self, artifact: Artifact) -> Sequence[str]:
        """Its names as people write them."""
        digest = artifact.descriptor.digest
        return sorted(parse(name).familiar for name, row in self._names.items() if row.digest == digest)

    def tags_of(self, repository: Reference) -> Sequence[Reference]:
        """Every tag of a repository."""
        names = [parse(name) for name, _ in self._names.items()]
        return sorted((name for name in names if name.name == repository.name and name.tag), key=str)

    def referrers(self, *subjects: str) -> Sequence[Artifact]:
        """What says something about one of these digests."""
        return [artifact for artifact in self._artifacts.values() if artifact.subject and artifact.subject in subjects]

    def roots(self, others: set[str]) -> set[str]:
        """Digests that must stay, those of `others` with them; referrers whose subject has gone are forgotten."""
        named = {row.digest for row in self._names.values()}
        waiting = {artifact.descriptor.digest: artifact for artifact in self._artifacts.values()}
        kept = set(others)
        while ready := [d for d, artifact in waiting.items() if d in named or artifact.subject in kept]:
            for digest in ready:
                kept.update(waiting.pop(digest).digests)
        for digest in waiting:
            self._artifacts.delete(digest)
        return kept

    # -- bring in and take away ----------------------------------------------------------------

    async def take(
        self, repository: Repository, lease: Lease, target: bytes, name: Reference | None, told: Told
    ) -> Artifact:
        """Fetch an artifact whose manifest or index is `target`. Raises RegistryError, InvalidArgument, Unavailable."""
        artifact, texts = await self._read(repository, target)
        await lease.add(*artifact.digests)
        slots = asyncio.Semaphore(_PARALLEL)

        async def fetch(blob: Descriptor) -> None:
            async with slots:
                known = self._images.content.has(blob.digest)
                told(blob, "Already exists" if known else "Pulling fs layer")
                await self._images.layers.add_blob(
                    blob.digest, blob.size, lambda offset: repository.blob(blob.digest, blob.size, offset)
                )
                if not known:
                    told(blob, "Pull complete")

        try:
            async with asyncio.TaskGroup() as group:
                for blob in artifact.blobs:
                    group.create_task(fetch(blob))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for text in texts:
            await blocking(self._images.content.add, text)
        with self._store.transaction():
            self._artifacts.put(artifact.descriptor.digest, artifact)
            if name is not None:
                self._names.put(str(name), Named(artifact.descriptor.digest))
        return artifact

    async def _read(self, repository: Repository, target: bytes) -> tuple[Artifact, list[bytes]]:
        """What an artifact consists of, and its documents."""
        document = documents.parse(target)
        texts = [target]
        if isinstance(document, Index):
            if len(document.manifests) > _DOCUMENTS:
                raise InvalidArgument(f"artifact has more than {_DOCUMENTS} manifests")
            for entry in document.manifests:
                data, _ = await repository.manifest(entry.digest)
                texts.insert(-1, data)
        parts = [documents.parse(text) for text in texts]
        if any(isinstance(part, Index) for part in parts[:-1]):
            raise InvalidArgument("artifact is nested too deeply")
        manifests = [part for part in parts if isinstance(part, Manifest)]
        blobs = {blob.digest: blob for part in manifests for blob in (part.config, *part.layers)}
        if outside := next((blob for blob in blobs.values() if blob.urls), None):
            raise InvalidArgument(f"blob {outside.digest} lies outside the registry: refused")
        made = Artifact(
            descriptor=documents.make_descriptor(target),
            artifact_type=documents.artifact_type(document),
            subject=check_digest(document.subject.digest) if document.subject else "",
            documents=[documents.make_descriptor(text) for text in texts],
            blobs=[*blobs.values()],
            annotations=document.annotations or {},
        )
        return made, texts

    async def take_referrers(self, repository: Repository, lease: Lease, subjects: Sequence[str], told: Told) -> int:
        """Fetch what refers to some digests, and what refers to that; gives how many there are. Raises as `take`."""
        waiting, seen = [*subjects], set[str]()
        while waiting:
            subject = waiting.pop()
            for entry in await repository.referrers(subject):
                if entry.digest in seen:
                    continue
                seen.add(entry.digest)
                if len(seen) > REFERRER_LIMIT:
                    raise InvalidArgument(f"more than {REFERRER_LIMIT} manifests refer to {subjects[0]}")
                data, _ = await repository.manifest(entry.digest)
                found = documents.parse(data)
                if found.subject is None or found.subject.digest != subject:
                    raise InvalidArgument(
                        f"manifest {digest_of(data)} does not refer to {subject} as its registry says"
                    )
                await self.take(repository, lease, data, None, told)
                waiting.append(entry.digest)
        return len(seen)

    def name(self, artifact: Artifact, name: Reference) -> None:
        """Give an artifact one more name."""
        self._names.put(str(name), Named(artifact.descriptor.digest))

    async def remove(self, name: str) -> None:
        """Take a name away, or with a digest the artifact; what nothing names is forgotten. Raises NotFound."""
        artifact = self.get(name)
        with self._store.transaction():
            if name.startswith("sha256:"):
                for known, row in self._names.items():
                    if row.digest == artifact.descriptor.digest:
                        self._names.delete(known)
                self._artifacts.delete(artifact.descriptor.digest)
            else:
                self._names.delete(str(parse(name).tagged()))
        await self._images.collect()

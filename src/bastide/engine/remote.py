"""What is asked of registries beyond pulling: push, login, inspection, search."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from yarl import URL

from bastide.engine.archives import Progress
from bastide.engine.layers import Lease
from bastide.engine.pull import explain, open_repository
from bastide.host.syscalls import blocking
from bastide.images import auth
from bastide.images import manifest as documents
from bastide.images.auth import Credentials
from bastide.images.decoding import decode
from bastide.images.digest import digest_of, short
from bastide.images.manifest import Index
from bastide.images.reference import DEFAULT_DOMAIN, Reference, parse, parse_repository
from bastide.images.registries import Registries
from bastide.images.registry import Connection, RegistryError, Repository, fetch
from bastide.model.errors import BastideError, InvalidArgument, NotFound, Unauthorized, Unavailable
from bastide.model.image import Artifact, Descriptor, Image, Platform

if TYPE_CHECKING:
    from bastide.engine.images import Images

_PARALLEL = 3
_REPORT_SECONDS = 0.1
_SEARCH = "https://index.docker.io/v1/search"
_SEARCH_LIMIT = 100


class Remote(msgspec.Struct, frozen=True):
    """A reference on a registry: what it points at and the platforms of that."""

    descriptor: Descriptor
    platforms: list[Platform]


async def look(registries: Registries, reference: Reference, credentials: Credentials | None) -> Remote:
    """What a registry says about a reference. Raises NotFound, Unauthorized, Unavailable."""
    async with Connection(registries) as connection:
        endpoint = registries.endpoints(reference)[-1]
        repository = await open_repository(connection, endpoint, reference, credentials)
        try:
            data, kind = await repository.manifest(reference.digest or reference.tag)
            document = documents.parse(data, kind)
            if isinstance(document, Index):
                platforms = [found for entry in document.manifests if (found := documents.platform_of(entry))]
            else:
                config = [chunk async for chunk in repository.blob(document.config.digest, document.config.size)]
                platforms = [documents.parse_config(b"".join(config)).platform]
        except RegistryError as error:
            raise explain(error, reference) from error
    descriptor = Descriptor(media_type=document.media_type, digest=digest_of(data), size=len(data))
    return Remote(descriptor, platforms)


async def login(registries: Registries, credentials: Credentials) -> str:
    """Check credentials against a registry; gives an identity token, "" for none. Raises Unauthorized, Unavailable."""
    address = credentials.serveraddress.strip() or "https://index.docker.io/v1/"
    host = URL(address if "://" in address else f"https://{address}").authority
    if host in ("index.docker.io", "docker.io"):
        host = DEFAULT_DOMAIN
    given = credentials.unpacked()
    if given.empty:
        raise Unauthorized(f"no user name and password for registry {host} were given")
    endpoint = registries.endpoints(Reference(host, "login"))[-1]
    async with Connection(registries) as connection:
        try:
            await Repository(connection, endpoint, given).ping()
        except RegistryError as error:
            raise Unauthorized(f"registry {host} refused the user name or the password: {error}") from error
    return ""


# -- push ----------------------------------------------------------------------------------------


async def push(images: Images, name: str, tag: str, credentials: Credentials | None, progress: Progress) -> None:
    """Push one tag of a repository, or all. Raises NotFound, Unauthorized, PermissionDenied, Unavailable."""
    repository = parse_repository(name) if tag else parse(name)
    if tag:
        wanted: Sequence[Reference] = [repository.with_tag(tag)]
    elif repository.tag:
        wanted = [repository]
    elif repository.digest:
        raise InvalidArgument("cannot push a digest reference")
    else:
        wanted = [*images.tags_of(repository), *images.artifacts.tags_of(repository)]
    if not wanted:
        raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
    registries = images.registries()
    progress({"status": f"The push refers to repository [{repository.name}]"})
    async with Connection(registries) as connection:
        endpoint = registries.endpoints(repository, push=True)[-1]
        remote = await open_repository(connection, endpoint, repository, credentials)
        for reference in wanted:
            try:
                await Push(images, reference, remote, progress).run()
            except RegistryError as error:
                raise _denied(error, repository) from error


def _denied(error: RegistryError, repository: Reference) -> BastideError:
    if error.code in ("DENIED", "UNAUTHORIZED", "NAME_UNKNOWN"):
        return Unauthorized(f"push access to {repository.familiar_name} denied: {error}")
    return Unavailable(f"registry {repository.domain}: {error}")


class Push:
    """One tag on its way out, an image's or an artifact's."""

    def __init__(self, images: Images, reference: Reference, remote: Repository, progress: Progress) -> None:
        self._images, self._reference, self._remote, self._progress = images, reference, remote, progress
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def run(self) -> None:
        """Blobs that are missing, then the manifest as it came, then what refers to it.

        Raises NotFound, RegistryError, Unavailable.
        """
        found = self._found()
        async with self._images.layers.leases.hold() as lease:
            if isinstance(found, Artifact):
                await lease.add(*found.digests)
                await self._send(found.blobs, found.documents, self._reference.tag)
                sent = found.descriptor
            else:
                await self._images.hold(lease, found)
                size = await blocking(self._images.content.size, found.id)
                config = Descriptor(media_type=documents.MediaType.OCI_CONFIG, digest=found.id, size=size)
                await self._send([*found.layers, config], [found.manifest], self._reference.tag)
                sent = found.manifest
                self._images.pushed(found, self._reference, sent.digest)
            await self._referrers(lease, sent.digest)
        tag, digest, size = self._reference.tag, sent.digest, sent.size
        self._progress({"status": f"{tag}: digest: {digest} size: {size}"})
        self._progress({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": size}})

    def _found(self) -> Image | Artifact:
        if artifact := self._images.artifacts.find(self._reference):
            return artifact
        try:
            return self._images.get(str(self._reference))
        except NotFound:
            raise NotFound(f"An image does not exist locally with the tag: {self._reference.familiar_name}") from None

    async def _send(self, blobs: Sequence[Descriptor], manifests: Sequence[Descriptor], tag: str = "") -> None:
        """Blobs, then manifests by their digests, the last one by `tag` where there is one."""
        wanted = {blob.digest: blob for blob in blobs}
        for blob in wanted.values():
            self._tell(blob, "Preparing")
        try:
            async with asyncio.TaskGroup() as group:
                for blob in wanted.values():
                    group.create_task(self._blob(blob))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for manifest in manifests:
            data = await blocking(self._images.content.read, manifest.digest)
            name = tag if tag and manifest is manifests[-1] else manifest.digest
            noted = await self._remote.put_manifest(name, data, manifest.media_type)
            subject = documents.parse(data).subject
            if subject is not None and not noted:
                await self._remote.tag_referrer(subject.digest, _referrer(data))

    async def _referrers(self, lease: Lease, *subjects: str) -> None:
        """What is kept about something that was sent goes with it, and what is kept about that."""
        waiting = [*subjects]
        while waiting:
            for artifact in self._images.artifacts.referrers(waiting.pop()):
                await lease.add(*artifact.digests)
                await self._send(artifact.blobs, artifact.documents)
                waiting.append(artifact.descriptor.digest)

    def _tell(self, blob: Descriptor, status: str, **more: Any) -> None:
        if blob.media_type not in documents.CONFIGS:
            self._progress({"status": status, "progressDetail": {}, "id": short(blob.digest)} | more)

    async def _blob(self, blob: Descriptor) -> None:
        async with self._slots:
            if await self._remote.has_blob(blob.digest):
                self._tell(blob, "Layer already exists")
                return
            origin = self._images.origin(blob.digest, self._reference)
            if await self._remote.upload(blob.digest, blob.size, lambda: self._chunks(blob), origin):
                self._tell(blob, "Pushed")
            else:
                self._tell(blob, f"Mounted from {origin}")

    async def _chunks(self, blob: Descriptor) -> AsyncIterator[bytes]:
        pieces = self._images.content.chunks(blob.digest)
        count, told = 0, time.monotonic()
        while chunk := await blocking(next, pieces, b""):
            yield chunk
            count += len(chunk)
            if time.monotonic() - told > _REPORT_SECONDS:
                told = time.monotonic()
                detail = {"current": count, "total": blob.size}
                shown = f"{count / 1e6:.1f}MB/{blob.size / 1e6:.1f}MB"
                self._tell(blob, "Pushing", progressDetail=detail, progress=shown)


def _referrer(data: bytes) -> Descriptor:
    """How the list of a subject's referrers names a manifest (distribution-spec, "Pushing Manifests with Subject")."""
    document, plain = documents.parse(data), documents.make_descriptor(data)
    return msgspec.structs.replace(
        plain, artifact_type=documents.artifact_type(document) or None, annotations=document.annotations
    )


# -- search --------------------------------------------------------------------------------------


class _Found(msgspec.Struct, frozen=True):
    """One result of the index's version 1 search."""

    name: str = ""
    description: str | None = None
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct, frozen=True):
    results: list[_Found] = []


async def search(
    registries: Registries, term: str, limit: str, filters: Mapping[str, Sequence[str]], credentials: Credentials | None
) -> Sequence[dict[str, Any]]:
    """Ask Docker Hub, or the registry that the term begins with, in the old index's way.

    Raises InvalidArgument, Unavailable (most registries cannot search).
    """
    count = int(limit) if limit.isdigit() else 25
    if not 1 <= count <= _SEARCH_LIMIT:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {_SEARCH_LIMIT}]")
    if unknown := set(filters) - {"is-official", "is-automated", "stars"}:
        raise InvalidArgument(f"invalid filter '{sorted(unknown)[0]}'")
    host, slash, rest = term.partition("/")
    url, words = _SEARCH, term
    if slash and any(sign in host for sign in ".:"):
        url, words = f"https://{host}/v1/search", rest
    given = credentials.unpacked() if credentials else await auth.find(DEFAULT_DOMAIN, "search")
    headers = {"Authorization": given.basic()} if given and given.username and url == _SEARCH else {}
    data = await fetch(registries, URL(url).with_query(q=words, n=str(count)), headers)
    found = decode(data, _Results, f"{URL(url).host} gave no valid answer to a search").results
    stars = max((int(value) for value in filters.get("stars", []) if value.isdigit()), default=0)
    official = [value.lower() in ("1", "true") for value in filters.get("is-official", [])]
    automated = [value.lower() in ("1", "true") for value in filters.get("is-automated", [])]
    return [
        msgspec.to_builtins(result)
        for result in found[:count]
        if result.star_count >= stars
        and (not official or result.is_official in official)
        and (not automated or result.is_automated in automated)
    ]

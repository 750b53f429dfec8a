"""Images: names over manifests over layers. Looking up, naming, removing; `pulls` and `archives` bring them in."""

from __future__ import annotations

import platform as machine
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bastide.engine import archives, remote, trust
from bastide.engine.archives import Progress
from bastide.engine.artifacts import Artifacts
from bastide.engine.build.state import changes as change
from bastide.engine.clock import now
from bastide.engine.events import Events
from bastide.engine.layers import Layers, Lease
from bastide.engine.pull import Pull, list_tags
from bastide.engine.state import Store
from bastide.host.syscalls import blocking
from bastide.images import layout
from bastide.images import manifest as documents
from bastide.images.auth import Credentials
from bastide.images.digest import digest_of, is_digest, short
from bastide.images.manifest import ImageConfig
from bastide.images.reference import Reference, parse, parse_repository
from bastide.images.registries import Registries
from bastide.model.config import Settings
from bastide.model.container import NEVER, Config
from bastide.model.errors import Conflict, InvalidArgument, NotFound, Unsupported
from bastide.model.image import Artifact, Descriptor, Image, Platform
from bastide.storage import Disks, Snapshotter

_HEX = re.compile(r"[0-9a-f]{1,64}")


class Named(msgspec.Struct, frozen=True):
    """What a reference points at: an image, and the digest of the manifest or index that it was pulled by."""

    image: str
    target: str = ""
    updated: str = ""


class Step(msgspec.Struct, frozen=True):
    """One line of an image's history: its size is the layer's, 0 for steps without one."""

    id: str
    created: str
    created_by: str
    tags: list[str]
    size: int
    comment: str


def host_platform() -> Platform:
    """What this host runs."""
    names = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}
    name = machine.machine()
    variant = {"armv7l": "v7", "armv6l": "v6"}.get(name, "")
    return Platform(os="linux", architecture=names.get(name, name), variant=variant)


def _quiet(message: dict[str, Any]) -> None:
    """Progress that nobody wants."""


class Images:
    """All images of this daemon.

    `used` gives image ids with the containers made from them, `running` the containers that run.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        events: Events,
        snapshotters: dict[str, Snapshotter],
        used: Callable[[], dict[str, list[str]]],
        running: Callable[[], set[str]] = set,
    ) -> None:
        self.settings = settings
        self.layers = Layers(settings.data_root / "content", store, snapshotters["overlay"])
        self.content = self.layers.content
        self.host = host_platform()
        self._store, self._events = store, events
        self._used, self._running = used, running
        self.artifacts = Artifacts(self, store)
        self.keepers: list[Callable[[], set[str]]] = []
        """What gives digests and diff ids that others hold on to, such as the build cache."""
        self.disks = next((found for found in snapshotters.values() if isinstance(found, Disks)), None)
        """What makes disks of layers, where something does."""
        self._images = store.table("images", Image)
        self._names = store.table("image_references", Named)

    async def open(self) -> None:
        """Mend what a power loss may have broken. Images that cannot be mended are forgotten."""
        self.layers.settle_later()
        if not self.content.suspects:
            return
        await self.layers.recover()
        for image in self._images.values():
            try:
                for descriptor, diff_id in zip(image.layers, image.diff_ids, strict=True):
                    if not self.layers.has(descriptor, diff_id):
                        await self.layers.restore(descriptor, diff_id)
            except (NotFound, InvalidArgument):
                self._forget(image)

    async def close(self) -> None:
        """Let go."""
        await self.layers.close()

    # -- look ----------------------------------------------------------------------------------

    def get(self, reference: str) -> Image:
        """The image of that name, id or unique prefix of an id.

        Raises NotFound and InvalidArgument in Docker's words, Unsupported where an artifact has the name.
        """
        found = self.find(reference)
        if found is None:
            raise self._missing(reference)
        return found

    def _missing(self, reference: str) -> NotFound | Unsupported:
        try:
            name = parse(reference).tagged()
        except InvalidArgument:
            return NotFound(f"No such image: {reference}")
        if artifact := self.artifacts.find(name):
            return documents.no_image(name.familiar, artifact.artifact_type)
        return NotFound(f"No such image: {name.familiar}")

    def find(self, reference: str) -> Image | None:
        """As `get`, None when there is none."""
        if is_digest(reference) or (len(reference) == 64 and _HEX.fullmatch(reference)):
            return self._images.get("sha256:" + reference.removeprefix("sha256:"))
        named = self._names.get(str(parse(reference).tagged())) if not reference.startswith("sha256:") else None
        if named is not None:
            return self._images.get(named.image)
        return self._by_prefix(reference.removeprefix("sha256:"))

    def _by_prefix(self, prefix: str) -> Image | None:
        if not _HEX.fullmatch(prefix):
            return None
        found = [image for image in self._images.values() if image.id.startswith("sha256:" + prefix)]
        return found[0] if len(found) == 1 else None

    def list(self) -> Sequence[Image]:
        """All images, the newest first."""
        return sorted(self._images.values(), key=lambda image: documents.instant(image.created), reverse=True)

    def named(self, image_id: str) -> Sequence[Reference]:
        """The references to an image, sorted."""
        return sorted(
            (parse(name) for name, row in self._names.items() if row.image == image_id), key=lambda found: str(found)
        )

    def references(self, image_id: str) -> Sequence[str]:
        """Its tags as people write them."""
        return [reference.familiar for reference in self.named(image_id) if not reference.digest]

    def digests(self, image_id: str) -> Sequence[str]:
        """Its digest references as people write them."""
        return [reference.familiar for reference in self.named(image_id) if reference.digest]

    def tagged_at(self, image_id: str) -> str:
        """When a tag was last put on it; "" for never."""
        return max((row.updated for row in self._names.values() if row.image == image_id), default="")

    def configuration(self, image: Image) -> ImageConfig:
        """The configuration as it came."""
        return documents.parse_config(self.content.read(image.id))

    def history(self, reference: str) -> Sequence[Step]:
        """The steps of an image, the newest first."""
        image = self.get(reference)
        tags, layers = self.references(image.id), iter(image.diff_ids)
        steps = []
        for step in image.history:
            size = 0 if step.empty_layer else self.layers.size([diff_id] if (diff_id := next(layers, "")) else [])
            steps.append(Step("<missing>", step.created or "", step.created_by or "", [], size, step.comment or ""))
        if steps:
            last = steps[-1]
            steps[-1] = msgspec.structs.replace(last, id=image.id, tags=tags)
        return steps[::-1]

    def shared_size(self, image: Image) -> int:
        """Bytes of the layers that other images have too."""
        others: set[str] = set().union(*(set(o.diff_ids) for o in self._images.values() if o.id != image.id))
        return self.layers.size([diff_id for diff_id in image.diff_ids if diff_id in others])

    def referrers(self, image: Image) -> Sequence[Artifact]:
        """What is kept that refers to an image."""
        return self.artifacts.referrers(image.manifest.digest, image.target.digest)

    def users(self, image_id: str) -> Sequence[str]:
        """The containers made from it."""
        return self._used().get(image_id, [])

    @asynccontextmanager
    async def using(self, image: Image) -> AsyncIterator[None]:
        """Keep an image's layers from being collected while the block makes something of them.

        Raises NotFound when it went before the block began.
        """
        async with self.layers.leases.hold() as lease:
            await lease.add(*image.diff_ids, *blobs_of(image))
            if image.id not in self._images:
                raise self._missing(image.id)
            yield

    # -- archives ------------------------------------------------------------------------------

    def check_archive(self, transport: str) -> None:
        """That the host's policy takes images from a `docker-archive` or `oci-archive`. Raises PermissionDenied."""
        trust.check_archive(transport, self.settings.containers_configuration)

    async def load(self, data: AsyncIterator[bytes], progress: Progress) -> Sequence[Image]:
        """Load the images of a docker-archive or OCI layout, compressed or not. Raises InvalidArgument, Unsupported."""
        return await archives.load(self, data, progress)

    def save(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        """An archive, both OCI layout and docker-archive, of images. Raises NotFound at the first step."""
        return archives.save(self, names)

    async def import_root(
        self, data: AsyncIterator[bytes], request: archives.ImportRequest, progress: Progress
    ) -> Image:
        """An image of one layer from the tar of a root file system. Raises InvalidArgument."""
        return await archives.import_root(self, data, request, progress)

    def changed(self, config: Config, changes: Sequence[str]) -> Config:
        """A configuration after instructions of a Dockerfile. Raises InvalidArgument."""
        return change(config, changes)

    # -- registries ----------------------------------------------------------------------------

    def registries(self) -> Registries:
        """What the host's configuration says about registries now. Raises InvalidArgument."""
        return Registries(self.settings.containers_configuration)

    async def pull(
        self,
        reference: Reference,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress = _quiet,
        insecure: Sequence[str] = (),
    ) -> Image:
        """Pull an image. `platform` is `os/arch[/variant]`, "" for the host's; `insecure` what not to protect from.

        Raises NotFound, Unauthorized, PermissionDenied, Unavailable, InvalidArgument, ResourceExhausted. What was
        fetched before an error is taken up by the next try.
        """
        return await Pull(self, reference, platform, credentials, progress, insecure).run()

    async def pull_any(
        self,
        reference: Reference,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress = _quiet,
        insecure: Sequence[str] = (),
        referrers: bool = False,
    ) -> None:
        """Pull what may be an image or an artifact; with `referrers` what refers to it as well. Raises as `pull`."""
        await Pull(self, reference, platform, credentials, progress, insecure, referrers).run_any()

    async def pull_tags(
        self,
        repository: Reference,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress = _quiet,
        insecure: Sequence[str] = (),
        referrers: bool = False,
    ) -> None:
        """Pull every tag of a repository, one after another; see `pull_any`."""
        for reference in await list_tags(repository, credentials, self.registries()):
            await self.pull_any(reference, platform, credentials, progress, insecure, referrers)

    async def push(self, name: str, tag: str, credentials: Credentials | None, progress: Progress = _quiet) -> None:
        """Push a tag, or every tag of a repository when `tag` is "". Raises NotFound, Unauthorized, Unavailable."""
        await remote.push(self, name, tag, credentials, progress)

    async def login(self, credentials: Credentials) -> str:
        """Check credentials; gives the identity token to use from now on, "" for none. Raises Unauthorized."""
        return await remote.login(self.registries(), credentials)

    async def inspect_remote(self, name: str, credentials: Credentials | None) -> remote.Remote:
        """What a registry says about a reference. Raises NotFound, Unauthorized, Unavailable."""
        return await remote.look(self.registries(), parse(name).tagged(), credentials)

    async def search(
        self, term: str, limit: str, filters: Mapping[str, Sequence[str]], credentials: Credentials | None
    ) -> Sequence[dict[str, Any]]:
        """What a registry's search finds. Raises InvalidArgument, Unavailable."""
        return await remote.search(self.registries(), term, limit, filters, credentials)

    # -- bring in ------------------------------------------------------------------------------

    def record(self, image: Image, names: Sequence[Reference] = (), action: str = "") -> Image:
        """Make an image exist whose blobs and layers are here and held; gives it back.

        Names move from other images, all at once. `action` is the event to tell of (`pull`, `load`, …).
        """
        stamp = now()
        with self._store.transaction():
            self._images.put(image.id, image)
            for name in names:
                self._names.put(str(name), Named(image.id, image.target.digest, stamp))
        if action:
            first = next(iter(names), None)
            self.event(action, first.familiar if first and action != "load" else image.id, image)
        return image

    def build_record(
        self,
        config_bytes: bytes,
        manifest: Descriptor,
        target: Descriptor,
        layers: Sequence[Descriptor],
        verified: str = "",
        insecure: Sequence[str] = (),
    ) -> Image:
        """The record of an image whose layers are here, from its documents."""
        config = documents.parse_config(config_bytes)
        return Image(
            id=digest_of(config_bytes),
            manifest=manifest,
            target=target,
            layers=[*layers],
            diff_ids=config.rootfs.diff_ids,
            platform=config.platform,
            created=config.created or NEVER,
            config=config.config or Config(),
            author=config.author or "",
            history=config.history or [],
            size=self.layers.size(config.rootfs.diff_ids),
            verified=verified,
            insecure_options=[*insecure],
        )

    async def assemble(
        self,
        lease: Lease,
        document: dict[str, Any],
        layers: Sequence[Descriptor],
        names: Sequence[Reference] = (),
        action: str = "",
    ) -> Image:
        """An image made here: its configuration `document` over layers that are here and held.

        Each name is told of as a tag, and `action` (`import`) after them.
        """
        config = msgspec.json.encode(document)
        manifest = layout.make_manifest(config, layers)
        await lease.add(digest_of(config), digest_of(manifest))
        for data in (config, manifest):
            await blocking(self.content.add, data)
        descriptor = documents.make_descriptor(manifest)
        image = self.record(self.build_record(config, descriptor, descriptor, layers), names)
        for told in (*["tag"] * len(names), *[action] * bool(action)):
            self.event(told, image.id, image)
        return image

    def tags_of(self, repository: Reference) -> Sequence[Reference]:
        """Every tag of a repository."""
        names = [parse(name) for name, _ in self._names.items()]
        return sorted((name for name in names if name.name == repository.name and name.tag), key=str)

    def origin(self, blob: str, target: Reference) -> str:
        """Another repository of the same registry that surely has a blob; "" for none."""
        for name, row in self._names.items():
            reference = parse(name)
            image = self._images.get(row.image)
            if (
                reference.digest
                and reference.domain == target.domain
                and reference.path != target.path
                and image is not None
                and blob in blobs_of(image)
            ):
                return reference.path
        return ""

    def pushed(self, image: Image, reference: Reference, digest: str) -> None:
        """An image is on a registry now, under this digest."""
        name = reference.with_digest(digest)
        self._names.put(str(name), Named(image.id, digest, now()))
        self.event("push", reference.familiar, image)

    def event(self, action: str, subject: str, image: Image) -> None:
        """Tell of something that happened to an image, with Docker's attributes."""
        labels = dict(image.config.labels or {})
        name = next(iter(self.references(image.id)), subject)
        self._events.publish("image", action, subject, labels | {"name": subject if action == "pull" else name})

    async def hold(self, lease: Lease, image: Image) -> None:
        """Hold everything of an image."""
        await lease.add(*image.diff_ids, *blobs_of(image))

    # -- names ---------------------------------------------------------------------------------

    def tag(self, reference: str, repository: str, tag: str = "") -> Reference:
        """One more name for an image or an artifact. Raises NotFound, InvalidArgument."""
        if not repository:
            raise InvalidArgument("invalid reference format: a repository name is needed")
        target = parse_repository(repository).with_tag(tag or "latest")
        image = self.find(reference)
        if image is None and (artifact := self.artifacts.find(parse(reference))):
            self.artifacts.name(artifact, target)
            return target
        image = self.get(reference)
        row = Named(image.id, image.target.digest, now())
        self._names.put(str(target), row)
        self.event("tag", image.id, image)
        return target

    def _untag(self, name: Reference, image: Image) -> dict[str, str]:
        self._names.delete(str(name))
        self.event("untag", image.id, image)
        return {"Untagged": name.familiar}

    # -- remove --------------------------------------------------------------------------------

    async def remove(self, reference: str, *, force: bool = False) -> Sequence[dict[str, str]]:
        """Take a name away, and the image with its last one: what was done, as Docker's `DELETE /images` says it.

        Raises NotFound, Conflict in Docker's words (moby, daemon/images/image_delete.go).
        """
        image = self.get(reference)
        names = list(self.named(image.id))
        done: list[dict[str, str]] = []
        if not self.is_id(reference, image):
            name = parse(reference).tagged()
            if not force and _single(names) and (users := list(self.users(image.id))):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{reference}" (must force) - '
                    f"container {short(users[0])} is using its referenced image {short(image.id)}"
                )
            done.append(self._untag(name, image))
            rest = list(self.named(image.id))
            if not name.digest and not any(other.name == name.name and other.tag for other in rest):
                done += [self._untag(other, image) for other in rest if other.name == name.name]
            if list(self.named(image.id)):
                return done
            if self._conflict(image, force, False):
                return done
        else:
            if conflict := self._conflict(image, force, not _single(names)):
                raise conflict
            done += [self._untag(name, image) for name in names]
        done += (await self._delete([image]))[0]
        return done

    def is_id(self, reference: str, image: Image) -> bool:
        """Whether `reference`, which found `image`, is its id or a prefix of it."""
        plain = reference.removeprefix("sha256:")
        if not image.id.startswith("sha256:" + plain):
            return False
        return reference.startswith("sha256:") or str(parse(reference).tagged()) not in self._names

    def _conflict(self, image: Image, force: bool, many_names: bool) -> Conflict | None:
        """Why an image cannot be deleted, None when it can."""
        users = list(self.users(image.id))
        shown = short(image.id)
        active = self._running()
        if running := [user for user in users if user in active]:
            return Conflict(
                f"conflict: unable to delete {shown} (cannot be forced) - "
                f"image is being used by running container {short(running[0])}"
            )
        if many_names and not force:
            return Conflict(
                f"conflict: unable to delete {shown} (must be forced) - image is referenced in multiple repositories"
            )
        if users and not force:
            return Conflict(
                f"conflict: unable to delete {shown} (must be forced) - "
                f"image is being used by stopped container {short(users[0])}"
            )
        return None

    def _forget(self, image: Image) -> None:
        with self._store.transaction():
            for name, row in self._names.items():
                if row.image == image.id:
                    self._names.delete(name)
            self._images.delete(image.id)

    async def _delete(self, images: Iterable[Image]) -> tuple[Sequence[dict[str, str]], int]:
        """Gives what was done and the bytes freed."""
        done = []
        before = {diff_id for image in self._images.values() for diff_id in image.diff_ids}
        for image in images:
            self._forget(image)
            self._events.publish("image", "delete", image.id, {"name": image.id})
            done.append({"Deleted": image.id})
        left = {diff_id for image in self._images.values() for diff_id in image.diff_ids}
        freed = await self.collect()
        return done + [{"Deleted": diff_id} for diff_id in sorted(before - left)], freed

    async def prune(
        self, *, every: bool = False, keep: Callable[[Image], bool] | None = None
    ) -> tuple[Sequence[dict[str, str]], int]:
        """Remove images that no container uses: those without a name or, with `every`, all.

        What `keep` holds fast stays. Gives what was done and the bytes freed.
        """
        done: list[dict[str, str]] = []
        used = self._used()
        gone = []
        for image in self.list():
            names = list(self.named(image.id))
            if image.id in used or (any(name.tag for name in names) and not every) or (keep and keep(image)):
                continue
            done += [self._untag(name, image) for name in names]
            gone.append(image)
        deleted, freed = await self._delete(gone)
        done += deleted
        freed += await self.collect(partials=True)
        self._events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return done, freed

    async def collect(self, *, partials: bool = False) -> int:
        """Remove blobs and layers that nothing needs; gives the bytes freed."""
        freed = await self.layers.collect(self._roots, partials=partials)
        return freed + (await self.disks.collect_disks() if self.disks else 0)

    def _roots(self) -> set[str]:
        """Digests and diff ids that must stay."""
        blobs: set[str] = {row.target for row in self._names.values() if row.target}
        for image in self._images.values():
            blobs.update(blobs_of(image), image.diff_ids)
        return self.artifacts.roots(blobs.union(*(keeper() for keeper in self.keepers)))


def _single(names: Iterable[Reference]) -> bool:
    """Whether at most one tag, all in one repository, names an image (Docker's isSingleReference)."""
    found = list(names)
    tags = [name for name in found if name.tag and not name.digest]
    return len(found) <= 1 or (len(tags) <= 1 and len({name.name for name in found}) == 1)


def blobs_of(image: Image) -> set[str]:
    """Digests of every blob that an image stands on."""
    return {image.id, image.manifest.digest, image.target.digest, *(layer.digest for layer in image.layers)}

"""Builds: a context and options in, an image out; and the cache that they leave."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bastide.engine.backends import Backends
from bastide.engine.build import options as asked
from bastide.engine.build.cache import Cache
from bastide.engine.build.context import Context, Places
from bastide.engine.build.layers import Workshop
from bastide.engine.build.mounts import CacheMounts, Mounts
from bastide.engine.build.options import Options
from bastide.engine.build.output import Output, Voice
from bastide.engine.build.running import ANNOTATION, Runner
from bastide.engine.build.secrets import Secrets
from bastide.engine.build.squash import merge
from bastide.engine.build.stages import Stages, check_platform
from bastide.engine.build.state import State, document
from bastide.engine.build.steps import Tools
from bastide.engine.clock import now, text
from bastide.engine.containers import Containers
from bastide.engine.create import Creator
from bastide.engine.images import Images
from bastide.engine.layers import Lease
from bastide.engine.ledger import Ledger
from bastide.engine.state import Store
from bastide.host import mounts as mounting
from bastide.host.syscalls import blocking
from bastide.host.trees import Trash
from bastide.images.archive import unpack_layer
from bastide.images.auth import Credentials
from bastide.images.compression import decompress
from bastide.images.dockerfile import instructions as dockerfile
from bastide.images.dockerfile.flags import duration
from bastide.images.dockerfile.stages import PREDEFINED, parse
from bastide.images.reference import Reference
from bastide.images.reference import parse as parse_reference
from bastide.images.threads import in_thread
from bastide.model.config import Settings
from bastide.model.errors import BastideError, Conflict, InvalidArgument, NotFound
from bastide.model.image import History, Image

log = logging.getLogger("bastide.engine")


class CacheRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of the cache, as `system df` and a prune see it. Times are RFC 3339."""

    id: str
    kind: str
    description: str
    in_use: bool
    shared: bool
    size: int
    created: str
    used: str
    uses: int
    parent: str = ""


class Builder:
    """Builds images and keeps the build cache."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        images: Images,
        containers: Containers,
        creator: Creator,
        ledger: Ledger,
        backends: Backends,
    ) -> None:
        self._settings, self._images = settings, images
        self._containers, self._creator, self._ledger = containers, creator, ledger
        self._backends = backends
        self._home = settings.data_root / "build"
        self._run = settings.run_root / "build"
        self._trash = Trash(self._home / "trash")
        self.cache = Cache(store, images.layers)
        self._caches = CacheMounts(self._home / "mounts", self._trash)
        self._places = Places(self._home / "contexts", self._run, self._trash)
        self.secrets = Secrets()
        self._opened = False
        images.keepers.append(self.cache.kept)

    async def open(self) -> None:
        """Remove what a crash left of builds: their containers, contexts and mounts."""
        for container in self._ledger.all():
            if ANNOTATION in (container.host_config.annotations or {}):
                with contextlib.suppress(BastideError):
                    await self._containers.remove(container.id, force=True, volumes=True)
        await blocking(self._sweep)

    def _sweep(self) -> None:
        for place in sorted(self._run.iterdir()) if self._run.is_dir() else ():
            _take_down(place)
        if self._home.is_dir():
            self._make_home()
            for kind in ("contexts", "scratch"):
                for left in (self._home / kind).iterdir():
                    self._trash.put(left)

    def _make_home(self) -> None:
        if self._opened:
            return
        for kind in ("contexts", "scratch", "mounts"):
            (self._home / kind).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._home.chmod(0o700)
        self._run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._trash.open()
        self._opened = True

    # -- build ---------------------------------------------------------------------------------

    async def build(self, options: Options, data: AsyncIterator[bytes], output: Output) -> Image:
        """Build an image from a context and say on `output` what happens. Ends the output.

        Raises InvalidArgument (options, Dockerfile, context), NotFound, StepFailed (a command), Unsupported,
        Unavailable, HostError, ResourceExhausted. On error, and when it is cancelled, no image exists.
        """
        try:
            asked.check(options)
            names = [parse_reference(tag).tagged() for tag in options.tags]
            if any(name.digest for name in names):
                raise InvalidArgument("refusing to create a tag with a digest reference")
            await blocking(self._make_home)
            async with self._places.received(options, data) as context:
                return await self._with_context(options, context, output, names)
        finally:
            output.end()

    async def _with_context(
        self, options: Options, context: Context, output: Output, names: Sequence[Reference]
    ) -> Image:
        platform, variables = asked.platforms(options, self._images.host)
        parsed = await blocking(parse, context.dockerfile, options.arguments, variables)
        target = parsed.target(options.target)
        build = os.urandom(8).hex()
        snapshotter = self._backends.snapshotter("overlay")
        scratch = self._home / "scratch" / build
        async with AsyncExitStack() as until:
            lease = await until.enter_async_context(self._images.layers.leases.hold())
            await blocking(scratch.mkdir, mode=0o700)
            until.callback(self._trash.put, scratch)
            workshop = Workshop(f"build-{build}", scratch, self._images.layers, snapshotter, lease, options.compression)
            until.push_async_callback(workshop.close)
            mounts = Mounts(options, self._run / build, scratch, self._caches)
            until.push_async_callback(mounts.close)
            runner = Runner(
                build, options, self._containers, self._creator, self._ledger, self._backends, snapshotter, workshop
            )
            resolve = self._resolver(options)
            stages = Stages(parsed, target, platform, resolve, output, lease, workshop, _labels(options))
            tools = Tools(
                options=options,
                parsed=parsed,
                context=context,
                cache=self.cache,
                cache_images=self._cache_images(options),
                layers=self._images.layers,
                lease=lease,
                workshop=workshop,
                runner=runner,
                mounts=mounts,
                origins=stages,
                platform_variables=variables,
                scratch=scratch,
            )
            state = await stages.run(tools)
            if options.squash:
                state = await self._squash(state, workshop, scratch)
            _warn(options, tools, output)
            return await self._finish(state, lease, names, output)

    async def _finish(self, state: State, lease: Lease, names: Sequence[Reference], output: Output) -> Image:
        if not state.history and not state.layers:
            raise InvalidArgument("No image was generated. Is your Dockerfile empty?")
        image = await self._images.assemble(lease, document(state), state.layers, names)
        output.send({"aux": {"ID": image.id}})
        output.say(f"Successfully built {image.id[7:19]}\n")
        for name in names:
            output.say(f"Successfully tagged {name.familiar}\n")
        return image

    def _cache_images(self, options: Options) -> list[Image]:
        """The images of `--cache-from` that are here; the others are passed over, as in Docker."""
        found = []
        for name in options.cache_from:
            with contextlib.suppress(NotFound, InvalidArgument):
                found.append(self._images.get(name))
        return found

    def _resolver(self, options: Options) -> Callable[[str, str, Voice], Awaitable[Image]]:
        async def resolve(reference: str, platform: str, voice: Voice) -> Image:
            wanted = platform or options.platform
            found = None if options.pull and not self._is_id(reference) else self._images.find(reference)
            if found is not None:
                try:
                    if wanted:
                        check_platform(found, wanted, self._images.host)
                    return found
                except Conflict:
                    if self._is_id(reference):
                        raise
            name = parse_reference(reference).tagged()
            return await self._images.pull(name, wanted, _credentials(options, name), voice.send)

        return resolve

    def _is_id(self, reference: str) -> bool:
        found = self._images.find(reference)
        return found is not None and self._images.is_id(reference, found)

    async def _squash(self, state: State, workshop: Workshop, scratch: Path) -> State:
        """The state with everything above its base in one layer."""
        above = state.layers[state.based_on :]
        if len(above) < 2:
            return state
        place = scratch / "squash"
        folders = [place / str(number) for number in range(len(above))]
        merged = place / "merged"
        for folder in (*folders, merged):
            await blocking(folder.mkdir, parents=True)
        for folder, layer in zip(folders, above, strict=True):
            chunks = decompress(self._images.content.chunks(layer.digest))
            await in_thread("unpack", unpack_layer, chunks, folder)
        await in_thread("squash", merge, folders, merged)
        packed = await workshop.adopt(merged)
        stamp = now()
        kept = _emptied(state)
        step = History(created=stamp, comment=f"merge {len(above)} layers", empty_layer=None if packed else True)
        return msgspec.structs.replace(
            state,
            layers=(*state.layers[: state.based_on], *([packed.descriptor] if packed else [])),
            diff_ids=(*state.diff_ids[: state.based_on], *([packed.diff_id] if packed else [])),
            history=(*kept, step),
            created=stamp,
        )

    # -- the cache -----------------------------------------------------------------------------

    async def usage(self) -> Sequence[CacheRecord]:
        """Everything that the cache holds, layers with their blobs; what images or earlier rows have is shared."""
        shared = self._in_images()
        found = []
        for name, row in self.cache.rows():
            if row.layer is None:
                continue
            found.append(
                CacheRecord(
                    id=name.removeprefix("sha256:"),
                    kind=row.kind,
                    description=row.instruction,
                    in_use=False,
                    shared=row.diff_id in shared,
                    size=row.size + row.layer.size,
                    created=row.created,
                    used=row.used,
                    uses=row.uses,
                    parent=row.parent.removeprefix("sha256:"),
                )
            )
            shared.add(row.diff_id)
        for name, size, in_use, changed in await blocking(self._caches.usage):
            moment = text(int(changed * 1e9))
            found.append(
                CacheRecord(
                    id=name,
                    kind="exec.cachemount",
                    description="cache mount",
                    in_use=in_use,
                    shared=False,
                    size=size,
                    created=moment,
                    used=moment,
                    uses=0,
                )
            )
        return found

    def _in_images(self) -> set[str]:
        return {diff_id for image in self._images.list() for diff_id in image.diff_ids}

    async def prune(
        self, *, every: bool = False, keep_bytes: int = 0, filters: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[Sequence[str], int]:
        """Forget what the cache holds that no image has or, with `every`, all of it.

        Gives the ids that went and the bytes that are free now. Raises InvalidArgument (filters).
        """
        wanted = dict(filters or {})
        until = max((_age(value) for value in wanted.pop("until", wanted.pop("unused-for", []))), default=0.0)
        identifiers = list(wanted.pop("id", []))
        kinds = set(wanted.pop("type", []))
        if wanted:
            raise InvalidArgument(f"invalid filter '{next(iter(wanted))}'")
        gone: list[str] = []
        freed = 0
        if not kinds or "regular" in kinds:
            gone = self.cache.choose(
                shared=self._in_images(), every=every, keep_bytes=keep_bytes, until=until, identifiers=identifiers
            )
            self.cache.drop(gone)
            freed = await self._images.collect()
        if not kinds or "exec.cachemount" in kinds:
            for name, size, in_use, changed in await blocking(self._caches.usage):
                young = until and changed > time.time() - until
                named = not identifiers or any(name.startswith(word) for word in identifiers)
                if not in_use and not young and named and (every or "exec.cachemount" in kinds or not keep_bytes):
                    self._caches.remove(name)
                    gone.append(name)
                    freed += size
        return [name.removeprefix("sha256:") for name in gone], freed


def _labels(options: Options) -> list[dockerfile.Instruction]:
    """The labels of the command line as the last instruction of the target."""
    if not options.labels:
        return []
    words = [(_quoted(name), _quoted(value)) for name, value in sorted(options.labels.items())]
    shown = " ".join(f"{name}={value}" for name, value in words)
    return [dockerfile.Label(line=0, original=f"LABEL {shown}", pairs=tuple(words))]


def _quoted(text: str) -> str:
    """A text so that nothing in it is expanded."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _warn(options: Options, tools: Tools, output: Output) -> None:
    unused = sorted(set(options.arguments) - tools.used - PREDEFINED - tools.platform_variables.keys())
    if unused:
        output.say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")


def _emptied(state: State) -> list[History]:
    """The history with the steps of this build holding no layers any more."""
    kept, layers = [], 0
    for step in state.history:
        if not step.empty_layer:
            layers += 1
            step = step if layers <= state.based_on else msgspec.structs.replace(step, empty_layer=True)
        kept.append(step)
    return kept


def _credentials(options: Options, name: Reference) -> Credentials | None:
    """What the client sent for a registry; Docker Hub is known by the name of its first index."""
    for address, fields in options.credentials.items():
        host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if host == name.domain or (name.domain == "docker.io" and host == "index.docker.io"):
            return msgspec.convert(fields, Credentials, strict=False)
    return None


def _age(value: str) -> float:
    """`24h`, or a time, as seconds before now. Raises InvalidArgument."""
    try:
        return duration(value, "until") / 1e9
    except InvalidArgument:
        pass
    try:
        moment = float(value) if value.replace(".", "").isdigit() else _moment(value)
    except ValueError as error:
        raise InvalidArgument(f"invalid until filter: {value!r}") from error
    return max(0.0, time.time() - moment)


def _moment(value: str) -> float:
    found = datetime.fromisoformat(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _take_down(place: Path) -> None:
    """Unmount what a build that was cut off left mounted, and remove its folder."""
    for mounted in sorted((entry.target for entry in mounting.mounts()), key=len, reverse=True):
        if mounted == str(place) or mounted.startswith(f"{place}/"):
            mounting.unmount_all(mounted)
    shutil.rmtree(place, ignore_errors=True)

"""`docker commit`: an image of what a container is now, whatever wall stands around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Sequence

import msgspec

from bastide.engine.backends import Backends
from bastide.engine.build.state import State, changes, document
from bastide.engine.clock import now
from bastide.engine.containers import Containers
from bastide.engine.files import MOUNT_TARGETS
from bastide.engine.guest_layer import write_guest
from bastide.engine.images import Images
from bastide.engine.layers import Lease
from bastide.engine.ledger import Ledger
from bastide.engine.new_layers import Fill, make_layer
from bastide.engine.reach import Reach
from bastide.images.changes import LayerWriter, Packed, write_changes
from bastide.images.reference import parse_repository
from bastide.images.threads import in_thread
from bastide.model.container import Config, Container, Status
from bastide.model.errors import Conflict, NotFound, Unsupported
from bastide.model.image import History, Image
from bastide.runtime import Feature, Files
from bastide.storage import Trees


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `POST /commit` asks for. `config`, when it is given, takes the place of the container's own."""

    repository: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    changes: list[str] = []
    pause: bool = True
    config: Config | None = None


class Committer:
    """Makes images of containers."""

    def __init__(
        self, ledger: Ledger, backends: Backends, containers: Containers, images: Images, reach: Reach
    ) -> None:
        self._ledger, self._backends, self._reach = ledger, backends, reach
        self._containers, self._images = containers, images
        self._home = images.settings.data_root / "build" / "scratch"

    async def commit(self, reference: str, request: CommitRequest) -> Image:
        """An image of a container's files and configuration.

        Raises NotFound, InvalidArgument (name, changes), Conflict (it is being removed, or its image has gone),
        HostError, GuestError.
        """
        container = self._containers.get(reference)
        if container.state.status is Status.REMOVING:
            raise Conflict(f"You cannot commit container {container.name} which is being removed")
        name = parse_repository(request.repository).with_tag(request.tag or "latest") if request.repository else None
        config = changes(request.config or _own(container), request.changes)
        base = self._base(container)
        async with self._images.layers.leases.hold() as lease:
            await self._images.hold(lease, base)
            packed = await self._packed(container, lease, request.pause)
            state = _state(base, container, config, request, packed)
            made = document(state)
            if request.comment:
                made["comment"] = request.comment
            image = await self._images.assemble(lease, made, state.layers, [name] if name else [])
        self._ledger.event(container, "commit", comment=request.comment, imageID=image.id, imageRef=str(name or ""))
        return image

    def _base(self, container: Container) -> Image:
        try:
            base = self._images.get(container.image_id)
        except NotFound as error:
            raise Conflict(f"the image of container {container.name} has gone: {container.image_id}") from error
        if list(base.diff_ids) != list(container.layers):
            raise Conflict(f"container {container.name} does not stand on its image's layers")
        return base

    async def _packed(self, container: Container, lease: Lease, pause: bool) -> Packed | None:
        """The container's changes as a layer of the store; None when there are none."""
        async with self._still(container, pause):
            return await make_layer(self._images.layers, lease, self._home, self._filler(container))

    def _filler(self, container: Container) -> Fill:
        """What writes the container's changes. Raises Unsupported when nobody reaches them."""
        snapshotter = self._backends.snapshotter(container.snapshotter)
        if isinstance(snapshotter, Trees):
            upper = snapshotter.upper(container.id)
            return lambda writer: in_thread("pack", write_changes, upper, writer, _is_stub)
        guest = self._reach.guest(container)
        if guest is None:
            raise Unsupported(f"isolation {container.isolation} cannot be committed")
        return lambda writer: self._write_guest(container, guest, writer)

    async def _write_guest(self, container: Container, guest: Files, writer: LayerWriter) -> None:
        async with self._reach.reached(container, guest):
            await write_guest(guest, container.id, writer)

    @contextlib.asynccontextmanager
    async def _still(self, container: Container, pause: bool) -> AsyncIterator[None]:
        """The container frozen while the block reads its files, where that is asked for and can be.

        One whose files only its own agent can read has to go on.
        """
        runtime = self._backends.runtime(container.runtime)
        running = container.state.status is Status.RUNNING
        reached_outside = isinstance(self._backends.snapshotter(container.snapshotter), Trees)
        if not (pause and running and reached_outside and Feature.PAUSE in runtime.features):
            yield
            return
        await self._containers.pause(container.id)
        try:
            yield
        finally:
            with contextlib.suppress(NotFound, Conflict):
                await asyncio.shield(self._containers.unpause(container.id))


def _is_stub(path: bytes, found: os.stat_result) -> bool:
    """Whether an entry is only a place that the start made to mount on."""
    return stat.S_ISREG(found.st_mode) and not found.st_size and "/" + os.fsdecode(path) in MOUNT_TARGETS


def _own(container: Container) -> Config:
    return msgspec.structs.replace(container.config, hostname="", domainname="", image="", mac_address=None)


def _state(base: Image, container: Container, config: Config, request: CommitRequest, packed: Packed | None) -> State:
    created = now()
    command: Sequence[str] = [container.path, *container.args]
    step = History(
        created=created,
        created_by=" ".join(command),
        author=request.author or None,
        comment=request.comment or None,
        empty_layer=None if packed else True,
    )
    return State(
        platform=base.platform,
        chain="",
        config=config,
        layers=(*base.layers, *([packed.descriptor] if packed else [])),
        diff_ids=(*base.diff_ids, *([packed.diff_id] if packed else [])),
        history=(*base.history, step),
        author=request.author or base.author,
        created=created,
    )

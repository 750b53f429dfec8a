"""What is made before anybody asks: templates, and containers that wait half made."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence

from bastide import runtime
from bastide.engine.backends import Backends
from bastide.engine.images import Images
from bastide.engine.merge import DEFAULT_PATH, command_line
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.pool import Named, PoolState
from bastide.model.process import Process
from bastide.runtime import Feature, Pooling, Prewarming, Runtime


class Warmth:
    """The runtimes that can, asked by their features."""

    def __init__(self, backends: Backends, images: Images) -> None:
        self._backends, self._images = backends, images

    async def _with(self, feature: Feature) -> AsyncIterator[Runtime]:
        """The runtimes that work here and have the feature. Raises Unsupported, with the reasons, when none does."""
        reasons, found = [], False
        for name in runtime.runtimes():
            if feature in runtime.load(name).features:
                candidate = self._backends.runtime(name)
                probe = await candidate.probe()
                if probe.usable:
                    found = True
                    yield candidate
                else:
                    reasons.append(f"{name}: {probe.reason}")
        if not found:
            raise Unsupported(f"no isolation that works here offers {feature}: {'; '.join(reasons)}")

    async def pool(self) -> PoolState:
        """What waits. Raises Unsupported."""
        async for each in self._with(Feature.POOL):
            if isinstance(each, Pooling):
                return each.pool()
        raise Unsupported("no isolation that works here has a pool")

    async def resize(self, limit: int) -> PoolState:
        """Let what waits use `limit` bytes of memory until the daemon's end. Raises InvalidArgument, Unsupported."""
        if limit < 0:
            raise InvalidArgument(f"invalid size of the pool: {limit}: give a number of bytes, 0 to turn it off")
        async for each in self._with(Feature.POOL):
            if isinstance(each, Pooling):
                each.resize_pool(limit)
        return await self.pool()

    async def prewarm(self, references: Sequence[str]) -> None:
        """Make what the first containers would wait for: of any image, and of those named.

        Raises NotFound (an image), Unsupported, GuestError, HostError, ResourceExhausted.
        """
        images = [(reference, self._images.get(reference)) for reference in references]
        async for each in self._with(Feature.PREWARM):
            if not isinstance(each, Prewarming):
                continue
            if not images:
                await each.prewarm()
            snapshotter = self._backends.snapshotter(each.snapshotter)
            for reference, image in images:
                key = f"prewarm-{secrets.token_hex(8)}"
                async with self._images.using(image):
                    root = await snapshotter.prepare(key, image.diff_ids)
                    try:
                        env = tuple(image.config.env or []) or (DEFAULT_PATH,)
                        first = Process(args=tuple(command_line(image.config)), env=env)
                        named = Named(name=reference, architecture=image.platform.architecture)
                        await each.prewarm(root, first, named)
                    finally:
                        await snapshotter.remove(key)

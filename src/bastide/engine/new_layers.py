"""Layers that are made here of files that stay where they are: packed, and unpacked into their place, in one pass."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from bastide.engine.layers import Layers, Lease
from bastide.host.syscalls import blocking, run
from bastide.host.trees import spread
from bastide.images.archive import unpack_layer
from bastide.images.changes import LayerWriter, Packed
from bastide.images.threads import Channel, in_thread

Fill = Callable[[LayerWriter], Awaitable[None]]
"""Writes the entries of a layer."""


def _make_place(place: Path) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    spread(place.parent)
    place.mkdir(mode=0o755)


async def make_layer(layers: Layers, lease: Lease, home: Path, fill: Fill, compression: str = "gzip") -> Packed | None:
    """The layer that `fill` writes, in the store and held; None when it writes nothing.

    `home` is a folder of the daemon's alone on the file system of the layers. What is unpacked are the very
    bytes that were packed, whoever changes the files meanwhile. Raises what `fill` and the unpacking raise.
    """
    place = home / os.urandom(8).hex()
    path, file = layers.content.spool()
    try:
        await blocking(_make_place, place)
        with file:
            channel = Channel()
            writer = LayerWriter(file, compression, channel.put)
            unpacking = asyncio.create_task(in_thread("unpack", unpack_layer, channel, place))
            try:
                await fill(writer)
                packed = await in_thread("pack", writer.end)
                channel.end()
            except BaseException as error:
                channel.end(error if isinstance(error, Exception) else RuntimeError("cancelled"))
                await asyncio.wait([unpacking])
                if not unpacking.cancelled():
                    unpacking.exception()
                raise
            await unpacking
        if not packed.entries:
            return None
        await lease.add(packed.descriptor.digest, packed.diff_id)
        await layers.adopt(packed.descriptor, packed.diff_id, path, place, packed.size)
        return packed
    finally:
        await blocking(path.unlink, missing_ok=True)
        if place.exists():
            await run(["rm", "-rf", "--one-file-system", "--", place])

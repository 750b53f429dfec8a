"""A layer of what changed behind a wall that only its runtime can look behind: asked for path by path.

What comes is a guest's word: names are cleaned, sizes are held to, and the layer is unpacked like any
other from elsewhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from bastide.images.changes import LayerWriter, copy_entries
from bastide.images.threads import Channel, in_thread
from bastide.runtime import Files

_CHANGED, _ADDED, _DELETED = 0, 1, 2


async def write_guest(guest: Files, container: str, writer: LayerWriter) -> None:
    """Write the changes of a running container, nothing of what is mounted in it.

    Raises GuestError, InvalidArgument, HostError.
    """
    for kind, path in outermost(await guest.changes(container)):
        name = os.fsencode(path).lstrip(b"/")
        if kind == _DELETED:
            writer.whiteout(name)
            continue
        channel = Channel()
        folder = name.rpartition(b"/")[0]
        copying = in_thread("layer", copy_entries, channel, writer, folder, first_only=kind == _CHANGED)
        work = asyncio.create_task(copying)
        await channel.fill(guest.get_archive(container, path, own=True), work)
        await work


def outermost(changes: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Changes without those inside something that is new itself: its archive holds them."""
    found: list[tuple[int, str]] = []
    new = ""
    for kind, path in sorted(changes, key=lambda change: change[1].split("/")):
        if new and path.startswith(new):
            continue
        found.append((kind, path))
        if kind == _ADDED:
            new = f"{path}/"
    return found

"""First use of a volume: it gets what the image has at its place, as Docker does."""

from __future__ import annotations

import os
from pathlib import Path

from bastide.engine.backends import Backends
from bastide.engine.files import open_in_root
from bastide.host.syscalls import blocking, run
from bastide.model.config import Settings
from bastide.model.container import Container, MountPoint
from bastide.model.errors import HostError
from bastide.model.process import DirectoryRoot, Root
from bastide.storage import Trees


class Populator:
    """Copies an image's directory into an empty volume."""

    def __init__(self, settings: Settings, backends: Backends) -> None:
        self._settings, self._backends = settings, backends

    async def fill(self, container: Container, root: Root) -> None:
        """Fill each empty volume of a new container. Raises HostError, ResourceExhausted."""
        no_copy = {
            mount.target
            for mount in container.host_config.mounts or []
            if mount.volume_options and mount.volume_options.no_copy
        }
        points = [
            point
            for point in container.mounts
            if point.type == "volume"
            and point.destination not in no_copy
            and "nocopy" not in point.mode
            and await blocking(_empty, Path(point.source))
        ]
        if not points:
            return
        if isinstance(root, DirectoryRoot):
            for point in points:
                await self._copy(root.path, point)
            return
        trees = self._backends.snapshotter("overlay")
        if isinstance(trees, Trees):
            key = f"{container.id}-fill"
            path = await trees.view(key, container.layers)
            try:
                for point in points:
                    await self._copy(path, point)
            finally:
                await self._backends.snapshotter("overlay").remove(key)

    async def _copy(self, root: Path, point: MountPoint) -> None:
        """Copy through a directory descriptor: links in the image cannot lead out of its tree."""
        try:
            source = await blocking(open_in_root, root, point.destination, os.O_RDONLY | os.O_DIRECTORY)
        except HostError:
            return
        try:
            done = await run(
                ["cp", "--archive", "--no-target-directory", f"/proc/self/fd/{source}/.", point.source],
                pass_fds=[source],
                timeout=3600,
            )
        finally:
            os.close(source)
        if done.code:
            raise HostError("cp", 5, f"{point.destination} to volume {point.name} ({done.complaint})")


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())

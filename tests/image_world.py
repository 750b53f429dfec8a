"""Images of one daemon over plain folders, and a registry that obeys the test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.registry_double import Folder, RegistryDouble

from bastide.engine.events import Events
from bastide.engine.images import Images
from bastide.engine.state import Store
from bastide.images.auth import Credentials
from bastide.images.reference import parse
from bastide.model.config import Settings
from bastide.model.image import Image


class World:
    """Images of one daemon over folders, and a registry."""

    def __init__(self, place: Path, registry: RegistryDouble) -> None:
        self.place, self.registry = place, registry
        self.used: dict[str, list[str]] = {}
        self.running: set[str] = set()
        self.snapshotter = Folder(place / "layers")
        self.told: list[dict[str, Any]] = []
        self.open()

    def open(self) -> None:
        """As after a start of the daemon."""
        self.store = Store(self.place / "data")
        self.events = Events()
        self.images = Images(
            Settings(data_root=self.place / "data", containers_configuration=self.place / "containers"),
            self.store,
            self.events,
            {"overlay": self.snapshotter},
            lambda: self.used,
            lambda: self.running,
        )

    async def restart(self) -> None:
        """Stop and start."""
        await self.close()
        self.open()

    async def close(self) -> None:
        await self.images.close()
        self.store.close()

    async def pull(self, name: str = "app:latest", platform: str = "", auth: Credentials | None = None) -> Image:
        reference = parse(f"{self.registry.host}/{name}")
        return await self.images.pull(reference, platform, auth, self.told.append)

    def layers(self) -> list[str]:
        """What is unpacked."""
        return sorted(os.listdir(self.snapshotter.place)) if self.snapshotter.place.exists() else []

    def nothing(self) -> bool:
        """Whether no image and no layer is there."""
        return not self.images.list() and not self.layers()

"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.image_world import World
from tests.registry_double import RegistryDouble

from bastide.images import registry as registries


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(registries, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none.json"))
    registry = RegistryDouble()
    await registry.start()
    made = World(tmp_path, registry)
    yield made
    await made.close()
    await registry.close()

"""`system df` against du: images with their blobs and the disks of VMs, the build cache, artifacts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.building import build
from tests.clients.raw import Api
from tests.living import Daemon, serving
from tests.registry import Registry, Remote


@pytest.fixture
def engine() -> Iterator[Daemon]:
    with serving("du", "10.95.0.0/16", "10.105.0.0/16", prepared_namespaces="0") as made:
        yield made


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def du(*folders: Path, apparent: bool = True) -> int:
    """The bytes of every file below some folders."""
    if not folders:
        return 0
    files = subprocess.run(["find", *folders, "-type", "f", "-print0"], check=True, capture_output=True).stdout
    if not files:
        return 0
    flags = ["--apparent-size", "-B1"] if apparent else ["-B1"]
    done = subprocess.run(["du", "-c", *flags, "--files0-from=-"], input=files, check=True, capture_output=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def usage(engine: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = Api(f"unix://{engine.socket}").ok("GET", "/system/df")
    return found


def told(engine: Daemon) -> int:
    """What `system df` says that images, the build cache and artifacts take."""
    found = usage(engine)
    cache = sum(item["Size"] for item in found["BuildCache"] if not item["Shared"])
    return int(found["LayersSize"] + cache + sum(item["Size"] for item in found["Artifacts"]))


def taken(engine: Daemon) -> int:
    """What they take."""
    content, layers = engine.data / "content", engine.data / "overlay" / "layers"
    return du(content / "blobs", content / "ingest", layers) + du(
        *(engine.data / "erofs" / "images").glob("*.erofs"), apparent=False
    )


def test_every_byte_is_told(engine: Daemon, registry: Registry) -> None:
    assert told(engine) == taken(engine) > 0
    build(engine, "FROM busybox\nRUN head -c 300000 /dev/urandom > /a\nRUN echo b > /b\n", t="built").ok()
    build(engine, "FROM busybox\nRUN head -c 200000 /dev/urandom > /gone\n", t="other").ok()
    assert told(engine) == taken(engine)
    engine.ok("rmi", "other")
    assert any(not item["Shared"] for item in usage(engine)["BuildCache"])
    assert told(engine) == taken(engine)
    Remote(registry, "parts").artifact("1", "application/vnd.example.parts", b"{}" * 50_000)
    reference = f"{registry.host}/parts:1"
    engine.ok("pull", "-q", reference)
    assert [item["Names"] for item in usage(engine)["Artifacts"]] == [[reference]]
    assert usage(engine)["Artifacts"][0]["Size"] > 100_000
    assert "Artifacts" in engine.ok("system", "df")
    assert reference in engine.ok("system", "df", "-v")
    assert told(engine) == taken(engine)
    engine.ok("artifact", "rm", reference)
    assert usage(engine)["Artifacts"] == []
    assert told(engine) == taken(engine)


def test_the_disk_of_vms_is_told_shared_and_goes(engine: Daemon) -> None:
    before = usage(engine)["LayersSize"]
    for name in ("one", "two"):
        engine.ok("create", "--name", name, "--isolation=vm", "--network=none", "busybox", "true")
        engine.ok("start", "-a", name)
    disks = [*(engine.data / "erofs" / "images").glob("*.erofs")]
    assert len(disks) == 1
    assert usage(engine)["LayersSize"] == before + du(*disks, apparent=False) == taken(engine)
    (image,) = usage(engine)["Images"]
    assert image["Size"] == usage(engine)["LayersSize"]
    engine.ok("rmi", "-f", "busybox")
    engine.ok("rm", "one")
    # The image's last user still starts from its disk.
    engine.ok("start", "-a", "two")
    engine.ok("rm", "two")
    assert taken(engine) == told(engine) == 0

"""The erofs snapshotter's bookkeeping, with the two programs and the layers played by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from bastide.host.syscalls import Finished
from bastide.hypervisor import disks
from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument, NotFound, ResourceExhausted
from bastide.model.process import DirectoryRoot, DiskRoot
from bastide.storage import Info, Snapshotter, Usage
from bastide.storage.erofs import Erofs

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Layers(Snapshotter):
    """A base whose layers are names."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.there, self.views = {A, B}, set[str]()

    async def probe(self) -> str:
        return ""

    @contextlib.asynccontextmanager
    async def layer(self, diff_id: str) -> AsyncIterator[Path | None]:
        yield None

    def has(self, diff_id: str) -> bool:
        return diff_id in self.there

    async def prepare(self, key: str, layers: Sequence[str], *, size: int = 0) -> DirectoryRoot:
        raise AssertionError

    async def mount(self, key: str) -> DirectoryRoot:
        raise AssertionError

    async def unmount(self, key: str) -> None:
        self.views.discard(key)

    async def remove(self, key: str) -> None:
        self.there.discard(key)

    async def usage(self, key: str) -> Usage:
        return Usage()

    async def walk(self) -> AsyncIterator[Info]:
        for diff_id in self.there:
            yield Info(key=diff_id, committed=True)

    async def changes(self, key: str) -> list[tuple[int, str]]:
        return []

    async def view(self, key: str, layers: Sequence[str]) -> Path:
        self.views.add(key)
        return Path("/tree")

    def upper(self, key: str) -> Path:
        return Path("/upper")

    async def duplicate(self, key: str, new: str) -> DirectoryRoot:
        raise AssertionError


class Programs:
    """mkfs.erofs and mke2fs."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answer = Finished(0, b"", b"")

    async def run(self, argv: Sequence[str | Path], **_: object) -> Finished:
        words = [str(word) for word in argv]
        self.calls.append(words)
        await asyncio.sleep(0.01)
        made = words[-2]
        Path(made).write_bytes(b"disk")
        return self.answer

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs()
    monkeypatch.setattr("bastide.storage.erofs.run", made.run)
    monkeypatch.setattr("bastide.hypervisor.disks.run", made.run)
    return made


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(Settings(data_root=tmp_path / "data", run_root=tmp_path / "run"))


@pytest.fixture
def store(layers: Layers, programs: Programs) -> Erofs:
    return Erofs(layers.settings, layers)


async def test_one_image_for_the_same_layers(store: Erofs, layers: Layers, programs: Programs) -> None:
    roots = await asyncio.gather(*(store.prepare(f"c{number}", [A, B]) for number in range(4)))
    assert len({root.base for root in roots}) == 1
    assert len({root.upper for root in roots}) == 4
    assert programs.count("mkfs.erofs") == programs.count("mke2fs") == 1
    assert layers.views == set()
    assert roots[0].base.stat().st_size == disks.BASE_SIZE
    await store.prepare("other", [B, A])
    assert programs.count("mkfs.erofs") == 2


async def test_a_new_snapshot_is_fresh_and_a_copy_is_not(store: Erofs) -> None:
    root = await store.prepare("one", [A])
    assert disks.take_fresh(root.upper)
    copy = await store.duplicate("one", "two")
    assert not disks.take_fresh(copy.upper)
    assert await store.mount("one") == root
    assert isinstance(await store.mount("two"), DiskRoot)
    assert [info.key async for info in store.walk()] == ["one", "two"]


async def test_images_go_with_their_layers_whoever_removes_these(store: Erofs, layers: Layers) -> None:
    base = (await store.prepare("one", [A])).base
    other = (await store.prepare("two", [B])).base
    await store.remove("one")
    assert base.exists()
    layers.there.discard(A)
    await store.remove("nothing")
    assert (base.exists(), other.exists()) == (False, True)
    await store.remove(B)
    assert other.exists(), "a snapshot stands on it"
    assert store.disk_size([B]) > 0
    await store.remove("two")
    assert not other.exists()
    assert store.disk_size([B]) == 0


async def test_a_full_disk_leaves_nothing(store: Erofs, layers: Layers, programs: Programs) -> None:
    programs.answer = Finished(1, b"", b"<E> erofs: failed to write: No space left on device\n")
    with pytest.raises(ResourceExhausted):
        await store.prepare("one", [A])
    home = layers.settings.data_root / "erofs"
    assert [path for folder in ("images", "snapshots", "staging") for path in (home / folder).iterdir()] == []
    assert layers.views == set()


async def test_what_is_refused(store: Erofs, layers: Layers) -> None:
    with pytest.raises(NotFound):
        await store.prepare("one", ["sha256:" + "c" * 64])
    with pytest.raises(InvalidArgument):
        await store.prepare("../one", [A])
    with pytest.raises(InvalidArgument):
        await store.prepare("one", [A], size=1)
    with pytest.raises(NotFound):
        await store.mount("one")


async def test_a_size_bounds_the_file_system(store: Erofs, programs: Programs) -> None:
    root = await store.prepare("one", [A], size=1 << 30)
    assert next(call for call in programs.calls if call[0] == "mke2fs" and call[-1] == "1048576k")
    assert root.upper.stat().st_size == disks.UPPER_SIZE
    assert not disks.take_fresh(root.upper)

"""What every snapshotter keeps to, on real file systems."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bastide import storage
from bastide.model.config import Settings
from bastide.model.errors import BastideError, InvalidArgument, NotFound
from bastide.model.process import DirectoryRoot, DiskRoot
from bastide.storage import Duplicating, Snapshotter, Trees

LOWER, MIDDLE, UPPER = (f"sha256:{digit * 64}" for digit in "abc")
KEY = "1" * 64


@pytest.fixture(params=storage.snapshotters())
async def snapshotter(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Snapshotter]:
    name = request.param
    base = None if name == "overlay" else storage.load("overlay")(settings)
    made = storage.load(name)(settings, base)
    assert await made.probe() == "", "every snapshotter works where the tests run"
    yield made
    await made.remove(KEY)


async def put(snapshotter: Snapshotter, diff_id: str, files: dict[str, str]) -> None:
    """A layer of these files; the content None of the kernel's whiteouts is not needed here."""
    async with (snapshotter.base or snapshotter).layer(diff_id) as folder:
        assert folder is not None
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


async def test_layer_that_fails_leaves_nothing(snapshotter: Snapshotter) -> None:
    async def fail() -> None:
        async with snapshotter.layer(LOWER) as folder:
            assert folder is not None
            (folder / "half").write_text("half")
            assert not snapshotter.has(LOWER)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert not snapshotter.has(LOWER)
    await put(snapshotter, LOWER, {"whole": "whole"})
    assert snapshotter.has(LOWER)


async def test_layer_is_filled_once(snapshotter: Snapshotter) -> None:
    entered = []

    async def fill() -> None:
        async with snapshotter.layer(LOWER) as folder:
            entered.append(folder)
            await asyncio.sleep(0.01)

    await asyncio.gather(fill(), fill(), fill())
    assert [folder is None for folder in entered] == [False, True, True]


async def test_snapshot_of_a_missing_layer(snapshotter: Snapshotter) -> None:
    with pytest.raises(NotFound):
        await snapshotter.prepare(KEY, [LOWER])
    assert [info async for info in snapshotter.walk()] == []


@pytest.mark.parametrize("key", ["../x", "", "a/b", ".hidden", "a\0b", "x" * 300])
async def test_names_stay_in_place(snapshotter: Snapshotter, key: str) -> None:
    with pytest.raises(InvalidArgument):
        await snapshotter.prepare(key, [])


async def test_life_of_a_snapshot(snapshotter: Snapshotter) -> None:
    await put(snapshotter, LOWER, {"file": "from the layer"})
    root = await snapshotter.prepare(KEY, [LOWER])
    assert await snapshotter.mount(KEY) == root
    await snapshotter.unmount(KEY)
    await snapshotter.unmount(KEY)
    assert await snapshotter.mount(KEY) == root
    await snapshotter.remove(KEY)
    await snapshotter.remove(KEY)
    with pytest.raises(NotFound):
        await snapshotter.mount(KEY)
    with pytest.raises(NotFound):
        await snapshotter.usage(KEY)


async def test_everything_is_found_again(snapshotter: Snapshotter, settings: Settings) -> None:
    await put(snapshotter, LOWER, {"file": "1"})
    await put(snapshotter, MIDDLE, {"other": "2"})
    root = await snapshotter.prepare(KEY, [LOWER, MIDDLE])
    base = None if snapshotter.base is None else type(snapshotter.base)(settings)
    after = type(snapshotter)(settings, base)
    found = {info.key: info async for info in after.walk()}
    assert found[KEY].layers == (LOWER, MIDDLE)
    assert not found[KEY].committed
    assert await after.mount(KEY) == root
    assert after.has(LOWER)


async def test_roots_are_there(snapshotter: Snapshotter) -> None:
    await put(snapshotter, LOWER, {"file": "1"})
    root = await snapshotter.prepare(KEY, [LOWER])
    if isinstance(root, DirectoryRoot):
        assert (root.path / "file").read_text() == "1"
        (root.path / "file").write_text("changed")
        await snapshotter.unmount(KEY)
        assert (await snapshotter.mount(KEY)) == root
        assert (root.path / "file").read_text() == "changed"
    elif isinstance(root, DiskRoot):
        assert root.base.stat().st_size > 0
        assert root.upper.exists()


async def test_usage_counts(snapshotter: Snapshotter) -> None:
    await put(snapshotter, LOWER, {"file": "x" * 100_000})
    await snapshotter.prepare(KEY, [LOWER])
    layer = await (snapshotter.base or snapshotter).usage(LOWER)
    assert layer.size >= 100_000
    assert layer.inodes >= 1
    assert (await snapshotter.usage(KEY)).size >= 0


async def test_removed_layer_is_gone(snapshotter: Snapshotter) -> None:
    await put(snapshotter, LOWER, {"file": "1"})
    await snapshotter.remove(LOWER)
    assert not snapshotter.has(LOWER)
    async with snapshotter.layer(LOWER) as folder:
        assert folder is not None


# -- trees -------------------------------------------------------------------------------------------


@pytest.fixture
def trees(settings: Settings) -> Snapshotter:
    made = storage.load("overlay")(settings)
    assert isinstance(made, Trees)
    return made


def path_of(root: object) -> Path:
    assert isinstance(root, DirectoryRoot)
    return root.path


async def test_changes(trees: Snapshotter) -> None:
    assert isinstance(trees, Trees)
    await put(trees, LOWER, {"etc/a": "1", "etc/b": "2", "gone/x": "3", "var/keep": "4", "replaced/old": "5"})
    root = path_of(await trees.prepare(KEY, [LOWER]))
    (root / "etc" / "a").write_text("changed")
    (root / "etc" / "new").write_text("new")
    (root / "gone" / "x").unlink()
    (root / "gone").rmdir()
    (root / "replaced" / "old").unlink()
    (root / "replaced").rmdir()
    (root / "replaced").mkdir()
    (root / "replaced" / "fresh").touch()
    assert await trees.changes(KEY) == [
        (0, "/etc"),
        (0, "/etc/a"),
        (1, "/etc/new"),
        (2, "/gone"),
        (0, "/replaced"),
        (1, "/replaced/fresh"),
        (2, "/replaced/old"),
    ]


async def test_changes_do_not_follow_links(trees: Snapshotter) -> None:
    """A link of the layer that became a directory: what is in it is new, whatever the link led to."""
    assert isinstance(trees, Trees)
    async with trees.layer(LOWER) as folder:
        assert folder is not None
        (folder / "link").symlink_to("/etc")
    root = path_of(await trees.prepare(KEY, [LOWER]))
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "link" / "passwd").touch()
    assert await trees.changes(KEY) == [(0, "/link"), (1, "/link/passwd")]


async def test_duplicate_has_the_same_changes(trees: Snapshotter) -> None:
    assert isinstance(trees, Trees)
    assert isinstance(trees, Duplicating)
    await put(trees, LOWER, {"folder/a": "1", "b": "2"})
    root = path_of(await trees.prepare(KEY, [LOWER]))
    (root / "b").unlink()
    (root / "folder" / "a").unlink()
    (root / "folder").rmdir()
    (root / "folder").mkdir()
    (root / "c").write_text("3")
    copy = path_of(await trees.duplicate(KEY, "2" * 64))
    assert sorted(path.name for path in copy.iterdir()) == ["c", "folder"]
    assert isinstance(trees, Trees)
    assert await trees.changes("2" * 64) == await trees.changes(KEY)
    (copy / "c").write_text("other")
    assert (root / "c").read_text() == "3"
    await trees.remove("2" * 64)


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_view_is_read_only(trees: Snapshotter, count: int) -> None:
    assert isinstance(trees, Trees)
    layers = [LOWER, MIDDLE][:count]
    for diff_id in layers:
        await put(trees, diff_id, {diff_id[-1]: "x"})
    view = await trees.view("view", layers)
    assert sorted(path.name for path in view.iterdir()) == [diff_id[-1] for diff_id in layers]
    with pytest.raises(OSError, match="Read-only"):
        (view / "new").touch()
    await trees.unmount("view")
    assert list(view.parent.glob("view")) == []
    await trees.remove("view")


async def test_root_looks_like_the_images(trees: Snapshotter) -> None:
    async with trees.layer(LOWER) as folder:
        assert folder is not None
        folder.chmod(0o555)
        os.chown(folder, 1, 2)
    root = path_of(await trees.prepare(KEY, [LOWER])).stat()
    assert (root.st_mode & 0o7777, root.st_uid, root.st_gid) == (0o555, 1, 2)


@pytest.mark.parametrize("by_page", [False, True])
async def test_as_many_layers_as_an_image_may_have(trees: Snapshotter, by_page: bool) -> None:
    """128 layers with names of 64 digits: far more than a page of mount options."""
    from bastide.host import mounts

    await trees.probe()
    if by_page:
        trees._mount = mounts.overlay_by_page  # type: ignore[attr-defined]
    layers = [f"sha256:{number:064x}" for number in range(128)]
    for diff_id in layers:
        await put(trees, diff_id, {diff_id[-3:]: "x", "last": diff_id})
    root = path_of(await trees.prepare(KEY, layers))
    assert len(list(root.iterdir())) == 129
    assert (root / "last").read_text() == layers[-1]


async def test_size_is_refused_by_name(trees: Snapshotter) -> None:
    with pytest.raises(BastideError, match="size"):
        await trees.prepare(KEY, [], size=1 << 30)


async def test_unfinished_is_swept_at_the_next_start(trees: Snapshotter, settings: Settings) -> None:
    await put(trees, LOWER, {"a": "1"})
    left = settings.data_root / "overlay" / "staging" / "left"
    left.mkdir()
    (left / "half").touch()
    after = type(trees)(settings)
    assert [info.key async for info in after.walk()] == [LOWER]
    assert not left.exists()


async def test_first_uses_at_once(settings: Settings) -> None:
    """The sweep of what a crash left does not take what others have just begun."""
    for _ in range(5):
        made = storage.load("overlay")(settings)
        keys = [os.urandom(8).hex() for _ in range(8)]
        await asyncio.gather(*(made.prepare(key, []) for key in keys))
        await asyncio.gather(*(made.remove(key) for key in keys))


async def test_a_record_that_is_broken_hides_nothing(trees: Snapshotter, settings: Settings) -> None:
    (settings.data_root / "overlay" / "snapshots" / "broken").mkdir(parents=True)
    await trees.prepare(KEY, [])
    assert {info.key for info in [info async for info in trees.walk()]} == {KEY, "broken"}
    await trees.remove("broken")
    assert {info.key for info in [info async for info in trees.walk()]} == {KEY}


async def test_a_snapshot_comes_back_at_once(trees: Snapshotter) -> None:
    """The end of an overlay passes in the background; a new one of the same snapshot waits for it."""
    root = path_of(await trees.prepare(KEY, []))
    for number in range(20):
        (root / str(number)).write_text("x")
        await trees.unmount(KEY)
        assert path_of(await trees.mount(KEY)) == root
        assert len(list(root.iterdir())) == number + 1

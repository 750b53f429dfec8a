from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from bastide.host.inotify import Watch
from bastide.model.errors import HostError


async def test_changes_are_heard_once(tmp_path: Path) -> None:
    with Watch(tmp_path) as watch:
        (tmp_path / "file").write_text("x")
        await asyncio.wait_for(watch.changed(), 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.changed(), 0.1)
        with (tmp_path / "file").open("a") as file:
            file.write("y")
        await asyncio.wait_for(watch.changed(), 5)


async def test_two_watches_of_one_directory(tmp_path: Path) -> None:
    one, two = Watch(tmp_path), Watch(tmp_path)
    one.close()
    (tmp_path / "file").write_text("x")
    await asyncio.wait_for(two.changed(), 5)
    two.close()
    two.close()


async def test_hundreds_share_one_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watches = []
    for number in range(300):
        folder = tmp_path / str(number)
        folder.mkdir()
        watches.append(Watch(folder))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    (tmp_path / "299" / "file").touch()
    await asyncio.wait_for(watches[299].changed(), 5)
    for watch in watches:
        watch.close()
    async with asyncio.timeout(10):
        while len(os.listdir("/proc/self/fd")) != before:  # noqa: ASYNC110  it is closed in a thread, which tells nobody
            await asyncio.sleep(0.01)


async def test_a_directory_that_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with Watch(folder) as watch:
        folder.rmdir()
        await asyncio.wait_for(watch.changed(), 5)


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="inotify_add_watch"):
        Watch(tmp_path / "none")

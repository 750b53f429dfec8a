"""Moving a log aside: numbers, how many are kept, packed ones, and readers meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bastide.engine import rotation
from bastide.engine.logs import LogQuery, files, read


def line(word: str) -> bytes:
    return f"2026-01-01T00:00:01Z stdout F {word}\n".encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "container.log"
    path.write_bytes(line("0"))
    return path


async def text(path: Path, query: LogQuery) -> bytes:
    return b"".join([piece async for _, piece in read(path, query, None)])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [1, 2, 3])
async def test_as_many_as_are_kept(log: Path, keep: int, packed: bool) -> None:
    for number in range(1, 6):
        rotation._move_aside(log, keep)
        log.write_bytes(line(str(number)))
        if packed and keep > 1:
            rotation._pack(log.with_name("container.log.1"))
    names = [f"container.log.{number}{'.gz' if packed else ''}" for number in range(keep - 1, 0, -1)]
    assert [path.name for path in files(log)] == [*names, "container.log"]
    assert len(list(log.parent.iterdir())) == keep
    expected = [f"{number}\n".encode() for number in range(6 - keep, 6)]
    assert await text(log, LogQuery()) == b"".join(expected)
    assert await text(log, LogQuery(tail=2)) == b"".join(expected[-2:])


@pytest.mark.parametrize(
    ("limit", "size", "rate", "seconds"),
    [
        (-1, 1 << 40, 1e9, rotation.INTERVAL),
        (1000, 100, 0, rotation.INTERVAL),
        (1000, 100, 10, rotation.INTERVAL),
        (1000, 100, 9000, 0.1),
        (1000, 100, 1e9, rotation.SHORTEST),
        (1000, 5000, 10, rotation.SHORTEST),
    ],
)
def test_a_log_that_is_flooded_is_looked_at_sooner(limit: int, size: int, rate: float, seconds: float) -> None:
    assert rotation.until_full(limit, size, rate) == pytest.approx(seconds)


async def test_a_packing_that_was_cut_off(log: Path) -> None:
    """SIGKILL amid a packing, and between its end and the removal of what was packed."""
    first = log.with_name("container.log.1")
    first.write_bytes(line("before"))
    first.with_name("container.log.1.part").write_bytes(b"half")
    first.with_name("container.log.1.gz").write_bytes(b"whole, or not")
    assert await text(log, LogQuery()) == b"before\n0\n"
    rotation._pack(first)
    assert await text(log, LogQuery()) == b"before\n0\n"
    assert sorted(path.name for path in log.parent.iterdir()) == ["container.log", "container.log.1.gz"]


async def test_readers_miss_nothing_while_it_rotates(log: Path) -> None:
    """What was written to a file after a reader's last look and before it was moved aside is read all the same."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    got: list[bytes] = []
    caught_up = asyncio.Event()

    async def follow() -> None:
        async for _, piece in read(log, LogQuery(follow=True), ended):
            got.append(piece)
            if piece.endswith(b"new\n"):
                caught_up.set()

    task = asyncio.create_task(follow())
    for number in range(1, 200):
        with log.open("ab") as handle:
            handle.write(line(f"{number} late"))
        if number % 10 == 0:
            rotation._move_aside(log, 3)
            log.write_bytes(line(f"{number} new"))
            rotation._pack(log.with_name("container.log.1"))
            # The reader is to be no more than one file behind, as one that is woken within a second is.
            await caught_up.wait()
            caught_up.clear()
    ended.set_result(None)
    await asyncio.wait_for(task, 5)
    expected = ["0"]
    for number in range(1, 200):
        expected += [f"{number} late"] + ([f"{number} new"] if number % 10 == 0 else [])
    assert b"".join(got).decode().splitlines() == expected

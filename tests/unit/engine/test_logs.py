"""Reading logs: the CRI format, its parts, its rotation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bastide.engine.logs import LogQuery, files, read
from bastide.runtime import Stream

LINES = (
    b"2026-01-01T00:00:01.000000000+00:00 stdout F one\n"
    b"2026-01-01T00:00:02.000000000+00:00 stderr F two\n"
    b"2026-01-01T00:00:03.000000000+00:00 stdout P thr\n"
    b"2026-01-01T00:00:03.500000000+00:00 stdout F ee\n"
)


async def collect(path: Path, query: LogQuery, ended: asyncio.Future[None] | None = None) -> list[tuple[Stream, bytes]]:
    return [piece async for piece in read(path, query, ended)]


async def text(path: Path, query: LogQuery) -> bytes:
    return b"".join(piece for _, piece in await collect(path, query))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "container.log"
    path.write_bytes(LINES)
    return path


async def test_streams_are_told_apart_and_parts_joined(log: Path) -> None:
    assert await collect(log, LogQuery()) == [
        (Stream.STDOUT, b"one\n"),
        (Stream.STDERR, b"two\n"),
        (Stream.STDOUT, b"thr"),
        (Stream.STDOUT, b"ee\n"),
    ]
    assert await text(log, LogQuery(stdout=False)) == b"two\n"


@pytest.mark.parametrize(
    ("tail", "expected"), [(0, b""), (1, b"three\n"), (2, b"two\nthree\n"), (9, b"one\ntwo\nthree\n")]
)
async def test_tail_counts_whole_lines(log: Path, tail: int, expected: bytes) -> None:
    assert await text(log, LogQuery(tail=tail)) == expected


async def test_timestamps_once_a_line(log: Path) -> None:
    lines = (await text(log, LogQuery(timestamps=True))).splitlines()
    assert lines[0] == b"2026-01-01T00:00:01.000000000Z one"
    assert lines[2] == b"2026-01-01T00:00:03.000000000Z three"


async def test_a_time_with_an_offset_is_given_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(b"2026-01-01T02:00:01.123456789+02:00 stdout F x\n")
    assert await text(path, LogQuery(timestamps=True)) == b"2026-01-01T00:00:01.123456789Z x\n"


async def test_since_and_until(log: Path) -> None:
    second = 1767225602.0
    assert await text(log, LogQuery(since=second)) == b"two\nthree\n"
    assert await text(log, LogQuery(until=second)) == b"one\ntwo\n"


async def test_rotated_files_come_first(log: Path) -> None:
    (log.parent / "container.log.1").write_bytes(b"2026-01-01T00:00:00Z stdout F zero\n")
    (log.parent / "container.log.2").write_bytes(b"2025-12-31T00:00:00Z stdout F before\n")
    assert [path.name for path in files(log)] == ["container.log.2", "container.log.1", "container.log"]
    assert (await text(log, LogQuery())).startswith(b"before\nzero\none\n")
    assert await text(log, LogQuery(tail=4)) == b"zero\none\ntwo\nthree\n"


async def test_a_half_written_line_is_left_for_later(log: Path) -> None:
    with log.open("ab") as handle:
        handle.write(b"2026-01-01T00:00:09Z stdout F hal")
    assert await text(log, LogQuery()) == b"one\ntwo\nthree\n"


async def test_follow_sees_new_lines_a_rotation_and_the_end(log: Path) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    got: list[bytes] = []

    async def follow() -> None:
        async for _, piece in read(log, LogQuery(follow=True, tail=0), ended):
            got.append(piece)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    with log.open("ab") as handle:
        handle.write(b"2026-01-01T00:00:05Z stdout F four\n")
    await asyncio.sleep(0.1)
    assert got == [b"four\n"]
    log.rename(log.with_name("container.log.1"))
    log.write_bytes(b"2026-01-01T00:00:06Z stdout F five\n")
    await asyncio.sleep(0.1)
    with log.open("ab") as handle:
        handle.write(b"2026-01-01T00:00:07Z stdout F six\n")
    ended.set_result(None)
    await asyncio.wait_for(task, 5)
    assert got == [b"four\n", b"five\n", b"six\n"]


async def test_bytes_that_are_no_log_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(b"\xff\xfe\n\nstdout F\n" + LINES)
    assert await text(path, LogQuery()) == b"one\ntwo\nthree\n"


async def test_a_log_that_was_removed_says_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "removed" / "container.log"
    assert await collect(gone, LogQuery(follow=True), asyncio.Future()) == []


async def test_details_stand_before_each_line_behind_its_time(log: Path) -> None:
    async def text(query: LogQuery) -> bytes:
        return b"".join([piece async for _, piece in read(log, query, None, b"a=b ")])

    assert await text(LogQuery(details=True)) == b"a=b one\na=b two\na=b three\n"
    assert await text(LogQuery()) == b"one\ntwo\nthree\n"
    assert await text(LogQuery(details=True, timestamps=True, tail=1)) == b"2026-01-01T00:00:03.000000000Z a=b three\n"

"""The state store: durable, one owner, clear about damage."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bastide.engine.state import Store
from bastide.model.errors import Conflict, ResourceExhausted, Unavailable


class Row(msgspec.Struct, frozen=True):
    number: int


def test_rows_survive_without_a_close(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("rows", Row)
    table.put("a", Row(1))
    table.put("b", Row(2))
    table.delete("a")
    store._lock.close()
    again = Store(tmp_path).table("rows", Row)
    assert again.items() == [("b", Row(2))]


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    first = Store(tmp_path)
    with pytest.raises(Conflict, match="another daemon uses"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("rows", Row)
    table.put("kept", Row(0))

    def fail() -> None:
        with store.transaction():
            table.put("a", Row(1))
            table.put("kept", Row(2))
            table.delete("kept")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert table.items() == [("kept", Row(0))]
    store.close()
    assert Store(tmp_path).table("rows", Row).items() == [("kept", Row(0))]


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_corrupt_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(Unavailable, match="cannot be read") as caught:
        Store(tmp_path)
    assert "\n" not in caught.value.message


def test_a_row_of_another_shape_is_one_clear_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.transaction() as db:
        db.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        db.execute("INSERT INTO rows VALUES ('a', '{\"number\": \"x\"}')")
    with pytest.raises(Unavailable, match="corrupt in table rows"):
        store.table("rows", Row)


def test_the_file_is_for_root_alone(tmp_path: Path) -> None:
    Store(tmp_path)
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


def test_on_a_full_disk_what_happened_is_kept_and_written_later(tmp_path: Path) -> None:
    store = Store(tmp_path)
    table = store.table("rows", Row)
    table.put("old", Row(0))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    table.put("big", Row(1))

    def fill() -> None:
        for number in range(10_000):
            table.put(f"{number:0100}", Row(number))

    with pytest.raises(ResourceExhausted, match="cannot be written"):
        fill()
    before = table.items()
    assert table.keep("happened" * 100, Row(7)) == Row(7)
    table.delete("old")
    assert "old" not in table
    assert len(table) == len(before)
    store._db.execute("PRAGMA max_page_count = 100000")
    table.put("more", Row(8))
    store.close()
    again = Store(tmp_path).table("rows", Row)
    assert again.get("happened" * 100) == Row(7)
    assert "old" not in again

"""The state store: SQLite in WAL mode, the one place that opens it.

A table is a name and a type; a row is a key and the JSON of a value. One daemon owns the store: an
exclusive lock on `lock` beside it makes a second one fail with a clear line.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from bastide.model.errors import Conflict, HostError, ResourceExhausted, Unavailable

T = TypeVar("T")
SCHEMA = 1

log = logging.getLogger("bastide.engine")


class Table(Generic[T]):
    """Rows of one type, by key. Reads come from memory, writes go through to disk before they return."""

    def __init__(self, store: Store, name: str, kind: type[T]) -> None:
        self._store, self._name = store, name
        self._unwritten: set[str] = set()
        self._encode = msgspec.json.Encoder().encode
        decode = msgspec.json.Decoder(kind).decode
        with store.transaction() as db:
            db.execute(f"CREATE TABLE IF NOT EXISTS {name} (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            rows = db.execute(f"SELECT key, value FROM {name}").fetchall()
        try:
            self._rows: dict[str, T] = {key: decode(value) for key, value in rows}
        except msgspec.MsgspecError as error:
            raise Unavailable(f"state file {store.path} is corrupt in table {name}: {error}") from error

    def get(self, key: str) -> T | None:
        """The value of a key, None when there is none."""
        return self._rows.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> list[str]:
        """All keys, in the order of their writing."""
        return list(self._rows)

    def values(self) -> list[T]:
        """All values, in the order of their writing."""
        return list(self._rows.values())

    def items(self) -> list[tuple[str, T]]:
        """All rows."""
        return list(self._rows.items())

    def put(self, key: str, value: T) -> T:
        """Write a row; it survives SIGKILL when this returns. Gives the value back."""
        with self._store.transaction() as db:
            db.execute(f"INSERT OR REPLACE INTO {self._name} VALUES (?, ?)", (key, self._encode(value)))
            self._store.on_rollback(self._restorer(key))
            self._rows[key] = value
        self._unwritten.discard(key)
        if self._unwritten:
            self._write_kept()
        return value

    def keep(self, key: str, value: T) -> T:
        """As `put`; but what a full disk does not take stays in memory, and is written with the next row that can be.

        For what has happened already: refusing to know it would help nobody.
        """
        try:
            return self.put(key, value)
        except ResourceExhausted as error:
            log.error("%s: %s", key, error.message)
            self._rows[key] = value
            self._unwritten.add(key)
            return value

    def _write_kept(self) -> None:
        """Write what `keep` and `delete` could not."""
        pending, self._unwritten = self._unwritten, set()
        for key in pending:
            if key in self._rows:
                self.keep(key, self._rows[key])
            else:
                self.delete(key)

    def delete(self, key: str) -> None:
        """Remove a row; absent is no error.

        On a full disk it is gone from memory, and from the file with a later write: just then, removing must work.
        """
        try:
            with self._store.transaction() as db:
                db.execute(f"DELETE FROM {self._name} WHERE key = ?", (key,))
                self._store.on_rollback(self._restorer(key))
                self._rows.pop(key, None)
        except ResourceExhausted as error:
            log.error("%s: %s", key, error.message)
            self._rows.pop(key, None)
            self._unwritten.add(key)

    def _restorer(self, key: str) -> Callable[[], None]:
        """What puts the row back in memory as it is now."""
        if key in self._rows:
            return functools.partial(self._rows.__setitem__, key, self._rows[key])
        return functools.partial(self._rows.__delitem__, key)


class Store:
    """The open store of one daemon.

    Raises Conflict when another daemon has it, Unavailable when the file is corrupt.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.db"
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
            self._lock = (directory / "lock").open("w")
        except OSError as error:
            raise HostError("open", error.errno or 0, str(directory)) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise Conflict(f"another daemon uses {directory}: stop it, or give this one its own data root") from error
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self.path.chmod(0o600)
            if self._db.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("quick_check failed")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise sqlite3.DatabaseError(f"schema {version} is of another version of bastide")
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        except sqlite3.Error as error:
            self._lock.close()
            raise Unavailable(
                f"state file {self.path} cannot be read: {error}; restore it from a backup, or move it away "
                "to begin with an empty state"
            ) from error
        self._depth = 0
        self._undo: list[Callable[[], None]] = []

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes in the block become durable together; nested blocks join the outer one."""
        if self._depth == 0:
            self._db.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield self._db
            if self._depth == 1:
                self._db.execute("COMMIT")
        except BaseException as error:
            self._depth -= 1
            if self._depth == 0:
                self._roll_back()
            if isinstance(error, sqlite3.OperationalError):
                raise ResourceExhausted(f"the state in {self.path} cannot be written: {error}") from error
            raise
        self._depth -= 1
        if self._depth == 0:
            self._undo.clear()

    def _roll_back(self) -> None:
        # A full disk makes SQLite roll back by itself.
        with suppress(sqlite3.OperationalError):
            self._db.execute("ROLLBACK")
        while self._undo:
            self._undo.pop()()

    def on_rollback(self, action: Callable[[], None]) -> None:
        """Run `action` if the present transaction is rolled back; the last one first."""
        self._undo.append(action)

    def table(self, name: str, kind: type[T]) -> Table[T]:
        """The table `name` of values of type `kind`; made when it does not exist."""
        return Table(self, name, kind)

    def close(self) -> None:
        """Let go of the store."""
        self._db.close()
        self._lock.close()

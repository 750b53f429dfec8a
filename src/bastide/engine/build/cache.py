"""The build cache: what a step made, by everything that it was made from. It survives restarts.

A key is the digest of the key before it, the instruction with its variables filled in, and the
digests of the files that it takes. A row is written after its layer is in place, so that a crash
leaves no row without its layer; layers of rows are kept from collection.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence

import msgspec

from bastide.engine.clock import now, text
from bastide.engine.layers import Layers
from bastide.engine.state import Store
from bastide.model.image import Descriptor, History, Image

ROW_LIMIT = 20_000
"""Rows that are kept; the ones that were not used for longest go first."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A step that was made. Without a layer it only remembers when that was: the same image comes out again."""

    parent: str
    instruction: str
    created: str
    layer: Descriptor | None = None
    diff_id: str = ""
    size: int = 0
    used: str = ""
    uses: int = 0
    kind: str = "regular"


def key(parent: str, *parts: str) -> str:
    """The key of a step. Parts are told apart by their lengths: no two lists give the same text."""
    found = hashlib.sha256()
    for part in (parent, *parts):
        data = part.encode(errors="surrogateescape")
        found.update(b"%d:" % len(data) + data)
    return "sha256:" + found.hexdigest()


class Cache:
    """All rows of this daemon."""

    def __init__(self, store: Store, layers: Layers) -> None:
        self._rows = store.table("build_cache", Row)
        self._store, self._layers = store, layers

    def find(self, name: str) -> Row | None:
        """The step of a key, when its layer is still here whole."""
        row = self._rows.get(name)
        if row is None:
            return None
        if row.layer is not None and not self._layers.has(row.layer, row.diff_id):
            self._rows.delete(name)
            return None
        return self._rows.put(name, msgspec.structs.replace(row, used=now(), uses=row.uses + 1))

    def put(self, name: str, row: Row) -> None:
        """Remember a step."""
        with self._store.transaction():
            self._rows.put(name, msgspec.structs.replace(row, used=row.used or now()))
            if len(self._rows) > ROW_LIMIT:
                self._shrink()

    def _shrink(self) -> None:
        oldest = sorted(self._rows.items(), key=lambda item: item[1].used)
        for name, _ in oldest[: len(oldest) - ROW_LIMIT * 9 // 10]:
            self._rows.delete(name)

    def kept(self) -> set[str]:
        """Digests and diff ids that rows stand on."""
        found: set[str] = set()
        for row in self._rows.values():
            if row.layer is not None:
                found.update((row.layer.digest, row.diff_id))
        return found

    def rows(self) -> Sequence[tuple[str, Row]]:
        """Everything, the latest used first."""
        return sorted(self._rows.items(), key=lambda item: item[1].used, reverse=True)

    def drop(self, names: Iterable[str]) -> None:
        """Forget some rows."""
        with self._store.transaction():
            for name in names:
                self._rows.delete(name)

    def choose(
        self, *, shared: set[str], every: bool, keep_bytes: int, until: float, identifiers: Sequence[str] = ()
    ) -> list[str]:
        """The rows that a prune takes, by key: those whose layer no image has, or `every` one.

        `keep_bytes` are left, `until` is seconds of disuse, `identifiers` name single rows.
        """
        limit = text(int((time.time() - until) * 1e9)) if until else ""
        chosen = []
        for name, row in reversed(self.rows()):
            wanted = every or row.diff_id not in shared
            if identifiers and not any(
                name.startswith(f"sha256:{word.removeprefix('sha256:')}") for word in identifiers
            ):
                wanted = False
            if limit and row.used > limit:
                wanted = False
            if wanted:
                chosen.append(name)
        if keep_bytes:
            rest = sum(row.size for row in self._rows.values())
            reduced = []
            for name in chosen:
                if rest <= keep_bytes:
                    break
                found = self._rows.get(name)
                rest -= found.size if found else 0
                reduced.append(name)
            return reduced
        return chosen


def from_images(
    images: Iterable[Image], history: Sequence[History], diff_ids: Sequence[str], command: str
) -> tuple[History, Descriptor | None, str] | None:
    """The step `command` in one of the images of `--cache-from` that was made just as far as this build is.

    Gives its history and its layer with its diff id, None when no image has it.
    """
    at = len(history)
    for image in images:
        if len(image.history) <= at or image.history[at].created_by != command:
            continue
        before = [(step.created_by, step.empty_layer) for step in image.history[:at]]
        layers = sum(not step.empty_layer for step in image.history[:at])
        if before != [(step.created_by, step.empty_layer) for step in history]:
            continue
        if layers != len(diff_ids) or tuple(image.diff_ids[:layers]) != tuple(diff_ids):
            continue
        step = image.history[at]
        if step.empty_layer:
            return step, None, ""
        if layers < len(image.diff_ids) == len(image.layers):
            return step, image.layers[layers], image.diff_ids[layers]
    return None

"""Compressed streams: every kind, several members, damage, and bombs (ATTACKS 8)."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from bastide.images import unpack as unpacking
from bastide.images.compression import PIECE, Gzip, decompress, kind_of
from bastide.images.unpack import unpack
from bastide.model.errors import InvalidArgument

DATA = bytes(range(256)) * 5000
MAKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "": bytes,
}


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    return (data[at : at + step] for at in range(0, len(data), step))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("step", [1000, 70_000, 1 << 30])
def test_every_kind(kind: str, step: int) -> None:
    packed = MAKERS[kind](DATA)
    assert kind_of(packed) == kind
    assert b"".join(decompress(pieces(packed, step))) == DATA


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_several_members(kind: str) -> None:
    packed = MAKERS[kind](DATA) + MAKERS[kind](b"second")
    for step in (999, 1 << 30):
        assert b"".join(decompress(pieces(packed, step))) == DATA + b"second"


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_cut_off(kind: str) -> None:
    with pytest.raises(InvalidArgument, match="ends early"):
        list(decompress(pieces(MAKERS[kind](DATA)[:-20], 500)))


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_damaged(kind: str) -> None:
    packed = bytearray(MAKERS[kind](DATA))
    packed[len(packed) // 2] ^= 0xFF
    packed[-3] ^= 0xFF
    with pytest.raises(InvalidArgument):
        list(decompress([bytes(packed)]))


def test_garbage_after_the_end() -> None:
    with pytest.raises(InvalidArgument):
        list(decompress([gzip.compress(DATA) + b"garbage that is no member"]))


def test_nothing_at_all() -> None:
    assert list(decompress([])) == []
    assert list(decompress([b"", b"ab"])) == [b"ab"]


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_dense_input_does_not_fill_the_memory(kind: str) -> None:
    bomb = MAKERS[kind](bytes(64 << 20))
    tracemalloc.start()
    total = sum(len(piece) for piece in decompress([bomb]) if len(piece) <= PIECE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 64 << 20
    assert peak < 24 << 20


def test_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 4 << 20)
    bomb = zstandard.compress(bytes(64 << 20))
    with pytest.raises(InvalidArgument, match="expands to more than"):
        unpack([bomb], None, None)


def test_digest_is_that_of_the_plain_layer(tmp_path: Path) -> None:
    import hashlib

    found = unpack(pieces(gzip.compress(DATA), 1000), None, None)
    assert found.diff_id == "sha256:" + hashlib.sha256(DATA).hexdigest()
    assert found.length == len(DATA)


def test_our_own_gzip_is_the_same_each_time() -> None:
    def once() -> bytes:
        coder = Gzip()
        return b"".join([coder.add(DATA), coder.add(DATA), coder.end()])

    assert once() == once()
    assert zlib.decompress(once(), 31) == DATA * 2
    assert once()[4:8] == bytes(4), "no time in the header"

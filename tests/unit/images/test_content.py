"""The content store: a blob is whole or not there (ATTACKS 1, 38)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.images.content import Content, Mismatch
from bastide.images.digest import digest_of
from bastide.model.errors import InvalidArgument, NotFound

DATA = b"some bytes of a blob" * 100
DIGEST = digest_of(DATA)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return Content(tmp_path / "content")


def test_whole_blob(content: Content) -> None:
    ingest = content.ingest(DIGEST, len(DATA))
    ingest.write(DATA[:100])
    assert not content.has(DIGEST)
    ingest.write(DATA[100:])
    assert not content.has(DIGEST)
    ingest.commit()
    assert content.has(DIGEST)
    assert content.read(DIGEST) == DATA
    assert b"".join(content.chunks(DIGEST)) == DATA
    assert content.digests() == [DIGEST]


@pytest.mark.parametrize("data", [DATA[:-1], DATA[:-1] + b"x", b""])
def test_wrong_bytes_are_refused_and_gone(content: Content, data: bytes) -> None:
    ingest = content.ingest(DIGEST, len(DATA))
    ingest.write(data)
    with pytest.raises(Mismatch):
        ingest.commit()
    assert not content.has(DIGEST)
    assert not content.partial(DIGEST).exists()


def test_over_long_body_is_stopped_while_it_comes(content: Content) -> None:
    ingest = content.ingest(DIGEST, len(DATA))
    ingest.write(DATA)
    with pytest.raises(Mismatch, match="longer"):
        ingest.write(b"x")
    assert not content.partial(DIGEST).exists()


def test_size_that_lies(content: Content) -> None:
    ingest = content.ingest(DIGEST, len(DATA) + 1)
    ingest.write(DATA)
    with pytest.raises(Mismatch, match="instead of"):
        ingest.commit()


def test_taken_up_after_a_crash(content: Content, tmp_path: Path) -> None:
    ingest = content.ingest(DIGEST, len(DATA))
    ingest.write(DATA[:777])
    ingest.close()
    again = Content(tmp_path / "content").ingest(DIGEST, len(DATA))
    assert again.offset == 777
    assert b"".join(again.earlier()) == DATA[:777]
    again.write(DATA[777:])
    again.commit()
    assert content.has(DIGEST)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "x", "", "sha256:" + "a" * 63])
def test_names_that_are_no_digests(content: Content, digest: str) -> None:
    for call in (content.path, content.partial, content.has, content.read, content.ingest):
        with pytest.raises(InvalidArgument):
            call(digest)


def test_absent_blob(content: Content) -> None:
    with pytest.raises(NotFound):
        content.read(DIGEST)
    assert content.remove(DIGEST) == 0


def test_partials_are_cleared_but_those_that_are_held(content: Content) -> None:
    other = digest_of(b"other")
    for digest in (DIGEST, other):
        ingest = content.ingest(digest, 100)
        ingest.write(b"x" * 10)
        ingest.close()
    assert content.clear_partials({other}) == 10
    assert not content.partial(DIGEST).exists()
    assert content.partial(other).exists()


def test_spools_do_not_survive_a_restart(content: Content, tmp_path: Path) -> None:
    path, file = content.spool()
    file.close()
    Content(tmp_path / "content")
    assert not path.exists()


def test_marker_is_there_until_all_is_on_disk(content: Content) -> None:
    marker = content.root / "unsynced"
    ingest = content.ingest(DIGEST, len(DATA))
    assert marker.exists()
    assert not content.settle(), "a writer is at work"
    ingest.write(DATA)
    ingest.commit()
    assert content.settle()
    assert not marker.exists()


def test_power_loss(content: Content, tmp_path: Path) -> None:
    content.add(DATA)
    other = content.add(b"other")
    (content.root / "unsynced").write_text("another boot")
    content.path(other).write_bytes(b"")
    fresh = Content(tmp_path / "content")
    assert fresh.suspects
    assert fresh.verify() == [other]
    assert fresh.has(DIGEST)
    assert not fresh.has(other)
    assert fresh.settle()
    assert not Content(tmp_path / "content").suspects


def test_killed_daemon_is_no_power_loss(content: Content, tmp_path: Path) -> None:
    content.add(DATA)
    assert not Content(tmp_path / "content").suspects

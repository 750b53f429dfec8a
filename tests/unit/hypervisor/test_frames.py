"""The agent's wire: what is sent can be read, what is hostile is refused, both sides agree on the numbers."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path

import pytest

from bastide.hypervisor import frames
from bastide.hypervisor.frames import HEADER, MORE, PAYLOAD, Ask, Decoder, ErrorKind, Field, Frame, Tell, frame
from bastide.model.errors import GuestError

PROTOCOL = Path(__file__).parents[3] / "guest" / "protocol.h"


def numbers(prefix: str) -> dict[str, int]:
    """The guest's constants that begin with `prefix_`."""
    found = re.findall(rf"\b{prefix}_([A-Z_]+) = (\d+)", PROTOCOL.read_text())
    return {name: int(value) for name, value in found}


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [("H", Ask), ("G", Tell), ("E", ErrorKind)],
)
def test_both_sides_have_the_same_numbers(prefix: str, kind: type[Ask | Tell | ErrorKind]) -> None:
    assert numbers(prefix) == {member.name: member.value for member in kind}


def test_both_sides_have_the_same_fields() -> None:
    assert numbers("F") | numbers("P") == {member.name: member.value for member in Field}


def test_both_sides_have_the_same_limits() -> None:
    text = PROTOCOL.read_text()
    assert f"#define WINDOW_STDIN {frames.WINDOW_STDIN}" in text
    assert f"#define WINDOW_OUTPUT {frames.WINDOW_OUTPUT}" in text
    assert f"#define PROTOCOL_VERSION {frames.VERSION}\n" in text
    assert f"#define FRAME_HEADER {HEADER.size}\n" in text


def told(kind: int, stream: int, data: bytes, flags: int = 0) -> bytes:
    """A frame as a guest sends it."""
    return HEADER.pack(kind, flags, 0, stream, len(data)) + data


@pytest.mark.parametrize("size", [1, 3, 7, 1000, 100_000])
def test_frames_arrive_in_any_pieces(size: int) -> None:
    sent = [(Tell.STDOUT, 5, b"x" * length) for length in (0, 1, 11, 12, 13, PAYLOAD)]
    data = b"".join(told(*one) for one in sent)
    decoder = Decoder()
    got = [one for at in range(0, len(data), size) for one in decoder.feed(data[at : at + size])]
    assert [(one.type, one.stream, one.data) for one in got] == sent


def test_long_messages_are_cut() -> None:
    pieces = list(Decoder().feed(frame(Ask.EXEC, 9, b"y" * (2 * PAYLOAD + 5))))
    assert [(one.flags, len(one.data)) for one in pieces] == [(MORE, PAYLOAD), (MORE, PAYLOAD), (0, 5)]
    assert {(one.type, one.stream) for one in pieces} == {(Ask.EXEC, 9)}


def test_a_frame_that_is_too_long_is_refused_before_it_is_kept() -> None:
    decoder = Decoder()
    with pytest.raises(GuestError, match="4294967295 bytes"):
        list(decoder.feed(HEADER.pack(Tell.STDOUT, 0, 0, 1, 0xFFFFFFFF)))


def test_frames_before_a_bad_one_are_given() -> None:
    given = Decoder().feed(told(Tell.EXIT, 1, b"12345678") + HEADER.pack(1, 0, 0, 1, PAYLOAD + 1))
    assert next(given) == Frame(Tell.EXIT, 0, 1, b"12345678")
    with pytest.raises(GuestError):
        next(given)


def test_seek_finds_a_marker_in_pieces_and_keeps_little() -> None:
    decoder = Decoder()
    decoder.add(b"old stuff" * 10_000 + b"MAR")
    assert not decoder.seek(b"MARKER")
    decoder.add(b"KER")
    assert decoder.seek(b"MARKER")


def test_noise_costs_nothing_but_an_error() -> None:
    source = random.Random(7)
    for _ in range(300):
        decoder = Decoder()
        with contextlib.suppress(GuestError):
            for _ in range(20):
                for one in decoder.feed(source.randbytes(source.randrange(200))):
                    assert len(one.data) <= PAYLOAD


def test_short_numbers_are_refused() -> None:
    with pytest.raises(GuestError):
        frames.numbers(b"123", 1)

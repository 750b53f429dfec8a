"""Shell patterns over one text, in time that grows with text times pattern and no faster.

`*` any text, `?` any character, `[…]` one of a class (`[!…]` none of it), a backslash takes the meaning
from what follows. All ends, or all starts, of a match are found in one pass over the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bastide.model.errors import InvalidArgument

TEXT_LIMIT = 1 << 12
PATTERN_LIMIT = 1 << 8
_ANYTHING = None

Sign = Callable[[str], bool] | None
"""A test of one character; None stands for any text."""


def read(pattern: str) -> list[Sign]:
    """A pattern's signs. Raises InvalidArgument when it is too long or a class is left open."""
    if len(pattern) > PATTERN_LIMIT:
        raise InvalidArgument(f"a pattern has more than {PATTERN_LIMIT} characters")
    signs: list[Sign] = []
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "*":
            if not signs or signs[-1] is not _ANYTHING:
                signs.append(_ANYTHING)
        elif sign == "?":
            signs.append(lambda _: True)
        elif sign == "[":
            test, at = _class(pattern, at)
            signs.append(test)
        else:
            if sign == "\\" and at < len(pattern):
                sign = pattern[at]
                at += 1
            signs.append(sign.__eq__)
    return signs


def _class(pattern: str, at: int) -> tuple[Callable[[str], bool], int]:
    negated = pattern[at : at + 1] in ("!", "^")
    at += negated
    end = pattern.find("]", at + 1)
    if end < 0:
        raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
    body, ranges = pattern[at:end], []
    while body:
        last = body[2] if len(body) > 2 and body[1] == "-" else body[0]
        ranges.append((body[0], last))
        body = body[3:] if len(body) > 2 and body[1] == "-" else body[1:]
    return lambda sign: any(low <= sign <= high for low, high in ranges) != negated, end + 1


def ends(signs: Sequence[Sign], text: str, start: int = 0) -> list[int]:
    """Every end of a match that begins at `start`, the nearest first."""
    found = []
    states = _through(signs, {0})
    for at in range(start, len(text) + 1):
        if len(signs) in states:
            found.append(at)
        if at == len(text) or not states:
            break
        states = _step(signs, states, text[at])
    return found


def starts(signs: Sequence[Sign], text: str) -> list[int]:
    """Every start of a match that ends with the text, the furthest first."""
    return [len(text) - end for end in ends(signs[::-1], text[::-1])][::-1]


def spans(signs: Sequence[Sign], text: str, *, everywhere: bool) -> list[tuple[int, int]]:
    """Where the pattern matches: leftmost, then as long as can be; all such places or the first."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(text):
        there = ends(signs, text, at)
        if there and there[-1] > at:
            found.append((at, there[-1]))
            if not everywhere or _ANYTHING in signs:
                # What can stand for any text has taken all that a later match would need.
                break
            at = there[-1]
        else:
            at += 1
    return found


def _through(signs: Sequence[Sign], states: set[int]) -> set[int]:
    """States with those that are reached without a character."""
    return states | {state + 1 for state in states if state < len(signs) and signs[state] is _ANYTHING}


def _step(signs: Sequence[Sign], states: set[int], sign: str) -> set[int]:
    following = set()
    for state in states:
        if state == len(signs):
            continue
        test = signs[state]
        if test is _ANYTHING:
            following.add(state)
        elif test(sign):
            following.add(state + 1)
    return _through(signs, following)

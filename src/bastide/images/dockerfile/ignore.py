"""`.dockerignore`: which paths of a context stay out of it. Go's filepath.Match, `**` and `!`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from bastide.model.errors import InvalidArgument

RULE_LIMIT = 10_000
LENGTH_LIMIT = 4096

Matcher = Callable[[str], bool]


class Ignore:
    """The rules of one file; the last one that fits decides. Raises InvalidArgument for a malformed pattern."""

    def __init__(self, text: str) -> None:
        self.rules: list[tuple[bool, Matcher]] = []
        """Whether a rule lets paths in again, and its test."""
        for line in text.removeprefix("\ufeff").splitlines():
            self._add(line)

    def _add(self, line: str) -> None:
        if line.startswith("#"):
            return
        pattern = line.strip()
        if not pattern:
            return
        keep = pattern.startswith("!")
        pattern = pattern[1:].strip() if keep else pattern
        if not pattern:
            raise InvalidArgument('illegal exclusion pattern: "!"')
        clean = posixpath.normpath(pattern)
        if len(clean) > 1 and clean.startswith("/"):
            clean = clean.lstrip("/")
        if len(clean) > LENGTH_LIMIT or len(self.rules) >= RULE_LIMIT:
            raise InvalidArgument("the .dockerignore file is too large")
        self.rules.append((keep, matcher(clean)))

    @property
    def exceptions(self) -> bool:
        """Whether some rule lets paths in again, so that an excluded directory must be looked into."""
        return any(keep for keep, _ in self.rules)

    def excludes(self, path: str) -> bool:
        """Whether a path (relative, with `/`) stays out. What fits a directory fits all that is in it."""
        parts = path.split("/")
        ancestors = ["/".join(parts[:size]) for size in range(1, len(parts) + 1)]
        out = False
        for keep, fits in self.rules:
            if keep == out and any(map(fits, ancestors)):
                out = not keep
        return out


def matcher(pattern: str) -> Matcher:
    """A test of whole paths. Raises InvalidArgument when the pattern is malformed.

    A regular expression serves few stars; many of them would make it try every way to share a path out.
    """
    signs = _signs(pattern)
    if sum(kind in _LOOPS for kind, _ in signs) <= _FEW:
        found = re.compile("".join(text for _, text in signs), re.DOTALL).fullmatch
        return lambda path: found(path) is not None
    tests = [(kind, re.compile(text, re.DOTALL).fullmatch if kind == _ONE else None) for kind, text in signs]
    return lambda path: _walk(tests, path)


_ONE, _STAR, _ANY, _FOLDERS = "one", "star", "any", "folders"
_LOOPS = {_STAR: "[^/]*", _ANY: ".*", _FOLDERS: "(?:.*/)?"}
_FEW = 2


def _signs(pattern: str) -> list[tuple[str, str]]:
    """The pattern's signs: their kinds and the regular expressions that stand for them."""
    signs: list[tuple[str, str]] = []
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "*":
            kind, at = _stars(pattern, at)
            if not signs or signs[-1][0] != kind:
                signs.append((kind, _LOOPS[kind]))
        elif sign == "?":
            signs.append((_ONE, "[^/]"))
        elif sign == "[":
            text, at = _class(pattern, at)
            signs.append((_ONE, text))
        else:
            if sign == "\\":
                if at == len(pattern):
                    raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
                sign = pattern[at]
                at += 1
            signs.append((_ONE, re.escape(sign)))
    return signs


def _walk(signs: Sequence[tuple[str, Callable[[str], object] | None]], path: str) -> bool:
    """All ways through the pattern at once, a character at a time."""
    states = _entered(signs, {0})
    for sign in path:
        stay, enter = set(), set()
        for state in states:
            if state == len(signs):
                continue
            kind, test = signs[state]
            if test is not None:
                if test(sign):
                    enter.add(state + 1)
            elif kind == _FOLDERS:
                stay.add(state)
                if sign == "/":
                    enter.add(state + 1)
            elif kind == _ANY or sign != "/":
                enter.add(state)
        states = stay | _entered(signs, enter)
    return len(signs) in states


def _entered(signs: Sequence[tuple[str, object]], states: set[int]) -> set[int]:
    """States with those that are reached without a character."""
    found: set[int] = set()
    for state in states:
        while state not in found:
            found.add(state)
            if state < len(signs) and signs[state][0] in _LOOPS:
                state += 1
    return found


def _stars(pattern: str, at: int) -> tuple[str, int]:
    """`*` stays within a component, `**` goes over any number of them, none included."""
    if at >= len(pattern) or pattern[at] != "*":
        return _STAR, at
    while at < len(pattern) and pattern[at] == "*":
        at += 1
    if at < len(pattern) and pattern[at] == "/":
        return _FOLDERS, at + 1
    return _ANY, at


def _class(pattern: str, at: int) -> tuple[str, int]:
    """`[a-z]`, `[^a-z]`; a backslash takes the meaning from what follows. It never stands for the separator."""
    negated = "^" if pattern[at : at + 1] == "^" else ""
    at += len(negated)
    ranges: list[str] = []
    while pattern[at : at + 1] != "]" or not ranges:
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] != "]":
            high, at = _member(pattern, at + 1)
        if low > high:
            raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"(?!/)[{negated}{''.join(ranges)}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] == "\\":
        at += 1
    if at >= len(pattern):
        raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
    return pattern[at], at + 1

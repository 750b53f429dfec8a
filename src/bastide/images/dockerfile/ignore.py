"""`.dockerignore`: which paths of a context stay out of it. Go's filepath.Match, `**` and `!`."""

from __future__ import annotations

import posixpath
import re

from bastide.model.errors import InvalidArgument

RULE_LIMIT = 10_000
LENGTH_LIMIT = 4096


class Ignore:
    """The rules of one file; the last one that fits decides. Raises InvalidArgument for a malformed pattern."""

    def __init__(self, text: str) -> None:
        self.rules: list[tuple[bool, re.Pattern[str], str]] = []
        """Whether a rule lets paths in again, its expression, and its cleaned pattern."""
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
        self.rules.append((keep, re.compile(expression(clean)), clean))

    @property
    def exceptions(self) -> bool:
        """Whether some rule lets paths in again, so that an excluded directory must be looked into."""
        return any(keep for keep, _, _ in self.rules)

    def excludes(self, path: str) -> bool:
        """Whether a path (relative, with `/`) stays out. What fits a directory fits all that is in it."""
        parts = path.split("/")
        ancestors = ["/".join(parts[:size]) for size in range(1, len(parts) + 1)]
        out = False
        for keep, pattern, _ in self.rules:
            if keep == out and any(pattern.fullmatch(name) for name in ancestors):
                out = not keep
        return out


def expression(pattern: str) -> str:
    """A pattern as a regular expression for whole paths. Raises InvalidArgument when it is malformed."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "*":
            piece, at = _stars(pattern, at)
            parts.append(piece)
        elif sign == "?":
            parts.append("[^/]")
        elif sign == "[":
            piece, at = _class(pattern, at)
            parts.append(piece)
        elif sign == "\\":
            if at == len(pattern):
                raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
            parts.append(re.escape(pattern[at]))
            at += 1
        else:
            parts.append(re.escape(sign))
    return "(?s:" + "".join(parts) + ")"


def _stars(pattern: str, at: int) -> tuple[str, int]:
    """`*` stays within a component, `**` goes over any number of them, none included."""
    if at >= len(pattern) or pattern[at] != "*":
        return "[^/]*", at
    while at < len(pattern) and pattern[at] == "*":
        at += 1
    if at == len(pattern):
        return ".*", at
    if pattern[at] == "/":
        return "(?:.*/)?", at + 1
    return ".*", at


def _class(pattern: str, at: int) -> tuple[str, int]:
    """`[a-z]`, `[^a-z]`."""
    end = at
    if end < len(pattern) and pattern[end] == "^":
        end += 1
    start = end
    body = ""
    while end < len(pattern) and (pattern[end] != "]" or end == start):
        if pattern[end] == "\\":
            end += 1
            if end == len(pattern):
                break
            body += re.escape(pattern[end])
        else:
            body += pattern[end] if pattern[end] == "-" else re.escape(pattern[end])
        end += 1
    if end >= len(pattern) or not body:
        raise InvalidArgument(f"syntax error in pattern: {pattern!r}")
    negated = "^" if start > at else ""
    try:
        re.compile(f"[{negated}{body}]")
    except re.error as error:
        raise InvalidArgument(f"syntax error in pattern: {pattern!r}") from error
    # A class never stands for the separator.
    return f"(?!/)[{negated}{body}]", end + 1

"""Words of an instruction: quotes, escapes and variables, as the Dockerfile reference describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bastide.images.dockerfile import globs
from bastide.model.errors import InvalidArgument

_SPECIAL = "@*#?-$!"
DEPTH_LIMIT = 32
"""Variables nested in each other's modifiers."""
RESULT_LIMIT = 1 << 20
"""Characters that a word may grow to: values of values multiply."""


class Expander:
    """Expands words with the variables of one moment. `escape` is the Dockerfile's escape sign.

    `used` collects the names that were looked up.
    """

    def __init__(self, variables: Mapping[str, str], escape: str = "\\") -> None:
        self.variables, self.escape = variables, escape
        self.used: set[str] = set()

    def word(self, text: str) -> str:
        """One word: variables replaced, quotes and escapes taken away. Raises InvalidArgument."""
        return "".join(part for part, _ in self._scan(text))

    def words(self, text: str) -> list[str]:
        """A line's words; a variable that stands unquoted may give several."""
        found: list[str] = []
        current, begun = "", False
        for part, whole in self._scan(text):
            if whole:
                current, begun = current + part, True
                continue
            for piece in re.split(r"(\s+)", part):
                if not piece:
                    continue
                if piece.isspace():
                    if begun:
                        found.append(current)
                    current, begun = "", False
                else:
                    current, begun = current + piece, True
        return [*found, current] if begun else found

    def text(self, text: str) -> str:
        """A here-document: variables replaced, quotes left as they are."""
        reader = _Reader(text)
        parts: list[str] = []
        while not reader.ended:
            sign = reader.take()
            if sign == self.escape and reader.peek() in ("$", self.escape):
                parts.append(reader.take())
            elif sign == "$":
                parts.append(self._variable(reader, 0))
            else:
                parts.append(sign)
        return _bounded("".join(parts))

    def _scan(self, text: str) -> list[tuple[str, bool]]:
        """Pieces of the text and whether each holds together (it was quoted or escaped)."""
        reader = _Reader(text)
        pieces = self._until(reader, "", 0)
        if sum(len(part) for part, _ in pieces) > RESULT_LIMIT:
            raise InvalidArgument(f"a word expands to more than {RESULT_LIMIT} characters")
        return pieces

    def _until(self, reader: _Reader, stop: str, depth: int) -> list[tuple[str, bool]]:
        if depth > DEPTH_LIMIT:
            raise InvalidArgument("syntax error: variables are nested too deeply")
        pieces: list[tuple[str, bool]] = []
        while not reader.ended:
            if stop and reader.peek() == stop:
                return pieces
            sign = reader.take()
            if sign == "'":
                pieces.append((reader.until("'", "single-quote"), True))
            elif sign == '"':
                pieces.append((self._double(reader, depth), True))
            elif sign == "$":
                pieces.append((self._variable(reader, depth), False))
            elif sign == self.escape:
                if reader.ended:
                    break
                pieces.append((reader.take(), True))
            else:
                pieces.append((sign, False))
        if stop:
            raise InvalidArgument(f"syntax error: missing '{stop}' in the substitution of {reader.text!r}")
        return pieces

    def _double(self, reader: _Reader, depth: int) -> str:
        parts: list[str] = []
        while True:
            if reader.ended:
                raise InvalidArgument("unexpected end of statement while looking for matching double-quote")
            sign = reader.take()
            if sign == '"':
                return "".join(parts)
            if sign == "$":
                parts.append(self._variable(reader, depth))
                continue
            if sign == self.escape and not reader.ended:
                following = reader.take()
                # Inside double quotes the escape sign stands for itself before anything else.
                sign = following if following in ('"', "$", self.escape) else sign + following
            parts.append(sign)

    # -- variables -----------------------------------------------------------------------------

    def _variable(self, reader: _Reader, depth: int) -> str:
        if reader.peek() != "{":
            name = reader.name()
            return self._value(name) or "" if name else "$"
        reader.take()
        if reader.ended:
            raise InvalidArgument("syntax error: missing '}'")
        name = reader.name()
        if not name:
            raise InvalidArgument(f"bad substitution in {reader.text!r}")
        if reader.ended:
            raise InvalidArgument("syntax error: missing '}'")
        sign = reader.take()
        if sign == "}":
            return self._value(name) or ""
        return self._modified(reader, name, sign, depth)

    def _value(self, name: str) -> str | None:
        self.used.add(name)
        return self.variables.get(name)

    def _modified(self, reader: _Reader, name: str, sign: str, depth: int) -> str:
        value = self._value(name)
        empty_counts = sign == ":"
        if empty_counts:
            sign = reader.take() if not reader.ended else ""
            if sign not in ("-", "+", "?"):
                raise InvalidArgument(f"unsupported modifier (:{sign}) in substitution of ${{{name}}}")
        present = bool(value) if empty_counts else value is not None
        if sign in ("-", "+", "?"):
            word = self._word(reader, "}", depth)
            if sign == "-":
                return value or "" if present else word
            if sign == "+":
                return word if present else ""
            if not present:
                raise InvalidArgument(
                    f"{name}: {word or 'not allowed to be ' + ('empty' if empty_counts else 'unset')}"
                )
            return value or ""
        if len(value or "") > globs.TEXT_LIMIT:
            raise InvalidArgument(f"{name} has more than {globs.TEXT_LIMIT} characters, too many for a pattern")
        if sign in ("#", "%"):
            longest = reader.peek() == sign
            if longest:
                reader.take()
            return _trimmed(value or "", self._word(reader, "}", depth), sign, longest=longest)
        if sign == "/":
            everywhere = reader.peek() == "/"
            if everywhere:
                reader.take()
            pattern = self._word(reader, "/", depth)
            replacement = self._word(reader, "}", depth)
            return _replaced(value or "", pattern, replacement, everywhere=everywhere)
        raise InvalidArgument(f"unsupported modifier ({sign}) in substitution of ${{{name}}}")

    def _word(self, reader: _Reader, stop: str, depth: int) -> str:
        result = "".join(part for part, _ in self._until(reader, stop, depth + 1))
        reader.take()
        return _bounded(result)


def _bounded(text: str) -> str:
    if len(text) > RESULT_LIMIT:
        raise InvalidArgument(f"a word expands to more than {RESULT_LIMIT} characters")
    return text


def _trimmed(value: str, pattern: str, sign: str, *, longest: bool) -> str:
    """`${value#pattern}` and `${value%pattern}`."""
    signs = globs.read(pattern)
    if sign == "#":
        ends = globs.ends(signs, value)
        return value[ends[-1] if longest else ends[0] :] if ends else value
    starts = globs.starts(signs, value)
    return value[: starts[0] if longest else starts[-1]] if starts else value


def _replaced(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """`${value/pattern/replacement}`: the longest match, leftmost first."""
    if not pattern:
        return value
    pieces, at = [], 0
    for start, end in globs.spans(globs.read(pattern), value, everywhere=everywhere):
        pieces += [value[at:start], replacement]
        at = end
    return "".join([*pieces, value[at:]])


class _Reader:
    """A text read sign by sign."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self.text)

    def peek(self) -> str:
        return self.text[self._at] if self._at < len(self.text) else ""

    def take(self) -> str:
        sign = self.text[self._at]
        self._at += 1
        return sign

    def until(self, sign: str, what: str) -> str:
        end = self.text.find(sign, self._at)
        if end < 0:
            raise InvalidArgument(f"unexpected end of statement while looking for matching {what}")
        found = self.text[self._at : end]
        self._at = end + 1
        return found

    def name(self) -> str:
        """A variable's name: letters, digits and `_`, or one of the shell's special parameters."""
        first = self.peek()
        if first.isascii() and first.isdigit():
            pattern = r"[0-9]+"
        elif first and first in _SPECIAL:
            self._at += 1
            return first
        else:
            pattern = r"[A-Za-z_][A-Za-z0-9_]*"
        match = re.compile(pattern).match(self.text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

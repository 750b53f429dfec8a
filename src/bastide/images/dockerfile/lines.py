"""A Dockerfile cut into instructions: directives, comments, continued lines, flags, here-documents."""

from __future__ import annotations

import re

import msgspec

from bastide.model.errors import InvalidArgument

SIZE_LIMIT = 4 << 20
"""Bytes of a Dockerfile."""
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_KNOWN_DIRECTIVES = ("syntax", "escape", "check")
_SPACES = " \t\v\f\r"
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)")
HEREDOC_COMMANDS = frozenset(("ADD", "COPY", "RUN"))


class ParseError(InvalidArgument):
    """The Dockerfile is wrong in a line that the message names."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"dockerfile parse error on line {line}: {message}")
        self.line = line


class Heredoc(msgspec.Struct, frozen=True, kw_only=True):
    """A here-document. `expand`: its delimiter was not quoted; `chomp`: leading tabs are taken off (`<<-`)."""

    name: str
    content: str
    expand: bool = True
    chomp: bool = False


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction. `rest` is what follows the flags, `original` the whole line, joined."""

    command: str
    flags: tuple[str, ...]
    rest: str
    original: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A Dockerfile, cut. `escape` is `\\` or a backtick, `directives` what stood at its top."""

    nodes: tuple[Node, ...]
    escape: str
    directives: dict[str, str]


def cut(data: bytes) -> Source:
    """The instructions of a Dockerfile. Raises ParseError and InvalidArgument."""
    if len(data) > SIZE_LIMIT:
        raise InvalidArgument(f"the Dockerfile has {len(data)} bytes, more than {SIZE_LIMIT}")
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the Dockerfile is not valid UTF-8: {error}") from error
    if "\0" in text:
        raise InvalidArgument("the Dockerfile holds a NUL: it is no text")
    return _Cutter(text).run()


class _Cutter:
    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._at = 0
        self._directives = self._read_directives()
        self.escape = self._directives.get("escape", "\\")

    def _read_directives(self) -> dict[str, str]:
        """The first lines, as long as each is a directive."""
        found: dict[str, str] = {}
        for number, line in enumerate(self._lines, 1):
            match = _DIRECTIVE.fullmatch(line.strip())
            if match is None:
                break
            name, value = match[1].lower(), match[2]
            if name not in _KNOWN_DIRECTIVES:
                continue
            if name in found:
                raise ParseError(number, f"only one {name} parser directive can be used")
            if name == "escape" and value not in ("\\", "`"):
                raise ParseError(number, f"invalid escape token '{value}' does not match ` or \\")
            found[name] = value
        return found

    def run(self) -> Source:
        """Cut everything."""
        nodes = []
        while self._at < len(self._lines):
            if (node := self._instruction()) is not None:
                nodes.append(node)
        if not nodes:
            raise InvalidArgument("the Dockerfile cannot be empty: file with no instructions")
        return Source(nodes=tuple(nodes), escape=self.escape, directives=self._directives)

    def _instruction(self) -> Node | None:
        """The next instruction, None for a line without one."""
        first = self._at + 1
        line = self._take().lstrip()
        if line.startswith("#"):
            return None
        piece, ended = self._uncontinued(line)
        if ended and not piece.strip():
            return None
        pieces = [piece]
        while not ended and self._at < len(self._lines):
            line = self._take()
            if line.lstrip().startswith("#") or not line.strip():
                continue
            piece, ended = self._uncontinued(line)
            pieces.append(piece)
        joined = "".join(pieces).strip()
        if not joined:
            return None
        return self._node(joined, first)

    def _take(self) -> str:
        line = self._lines[self._at]
        self._at += 1
        return line.removesuffix("\r")

    def _uncontinued(self, line: str) -> tuple[str, bool]:
        """The line without its continuation sign, and whether the instruction ends with it.

        A doubled escape sign continues nothing.
        """
        bare = line.rstrip(" \t")
        if not bare.endswith(self.escape) or bare.endswith(self.escape * 2):
            return line, True
        return bare[:-1], False

    def _node(self, joined: str, first: int) -> Node:
        match = re.match(rf"[^{_SPACES}]+", joined)
        assert match is not None
        command = match[0].upper()
        flags, rest = split_flags(joined[match.end() :].strip(), first)
        heredocs: tuple[Heredoc, ...] = ()
        if "<<" in rest and command in HEREDOC_COMMANDS:
            heredocs = tuple(self._heredoc(start, first) for start in heredoc_starts(rest, self.escape))
        return Node(
            command=command,
            flags=flags,
            rest=rest,
            original=joined,
            first=first,
            last=self._at,
            heredocs=heredocs,
        )

    def _heredoc(self, start: Heredoc, first: int) -> Heredoc:
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            candidate = line.removesuffix("\r")
            if (candidate.lstrip("\t") if start.chomp else candidate) == start.name:
                return msgspec.structs.replace(start, content="".join(content))
            content.append((line.lstrip("\t") if start.chomp else line) + "\n")
        raise ParseError(first, f"unterminated heredoc: the line {start.name!r} is missing")


def heredoc_starts(rest: str, escape: str) -> list[Heredoc]:
    """The here-documents that a line announces (`<<EOF`, `<<-EOF`, `<<"EOF"`), in order."""
    found = []
    for word in _shell_words(rest, escape):
        match = _HEREDOC.fullmatch(word)
        if match is None:
            continue
        name = _unquoted(match[3], escape)
        if name:
            found.append(Heredoc(name=name, content="", expand=name == match[3], chomp=bool(match[2])))
    return found


def _shell_words(text: str, escape: str) -> list[str]:
    """Words between spaces, quotes and escapes kept as they stand. A JSON list has none of interest."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        sign = text[at]
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == escape and at + 1 < len(text):
            word += sign
            at += 1
            sign = text[at]
        elif sign.isspace():
            words.append(word)
            word, sign = "", ""
        word += sign
        at += 1
    return [word for word in [*words, word] if word]


def _unquoted(word: str, escape: str) -> str:
    for quote in "\"'":
        if len(word) > 2 and word[0] == word[-1] == quote:
            return word[1:-1]
    return word.replace(escape, "")


def split_flags(text: str, line: int) -> tuple[tuple[str, ...], str]:
    """The flags (`--name=value`) at the beginning, unquoted, and the rest of the line."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        word, at = _flag(text, at)
        if word == "--":
            return tuple(flags), text[at:].lstrip()
        flags.append(word)
        if len(flags) > 1000:
            raise ParseError(line, "too many flags")


def _flag(text: str, at: int) -> tuple[str, int]:
    word, quote = "", ""
    while at < len(text):
        sign = text[at]
        if not quote and sign.isspace():
            break
        if sign == "\\" and at + 1 < len(text):
            at += 1
            word += text[at]
        elif quote:
            quote, word = ("", word) if sign == quote else (quote, word + sign)
        elif sign in "\"'":
            quote = sign
        else:
            word += sign
        at += 1
    return word, at

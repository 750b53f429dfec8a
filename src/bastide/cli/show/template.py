"""Go's text/template, as much of it as `--format` is used with: the reader.

Pipelines, fields, variables, literals, `if`/`else`/`with`/`range`/`end`, comments and trim marks make
a tree of small nodes; `evaluate` runs it. Reference: https://pkg.go.dev/text/template.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\r\n"
_PUNCTUATION = ("|", "(", ")", ",", ":=", "=")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'", "a": "\a", "b": "\b", "0": "\0"}
_WORDS = {"true": True, "false": False}


class TemplateError(Exception):
    """A template that cannot be read or run; the message is Go's."""


class Token:
    """A word of an action. `kind`: name, field, variable, literal, dot or the punctuation itself."""

    __slots__ = ("kind", "spaced", "text", "value", "where")

    def __init__(self, kind: str, text: str, where: str, value: Any = None, spaced: bool = False) -> None:
        self.kind, self.text, self.where, self.value, self.spaced = kind, text, where, value, spaced


class Operand:
    """A value in a pipeline: `kind` dot, variable, literal, name (a function) or pipe, then fields of it."""

    __slots__ = ("fields", "kind", "text", "value", "where")

    def __init__(self, kind: str, value: Any, text: str, where: str) -> None:
        self.kind, self.value, self.text, self.where = kind, value, text, where
        self.fields: list[str] = []


class Pipe:
    """`$a, $b := command | command`; `declares` tells `:=` from `=`."""

    __slots__ = ("commands", "declares", "variables")

    def __init__(self) -> None:
        self.commands: list[list[Operand]] = []
        self.variables: list[str] = []
        self.declares = True


class Node:
    """A piece of a template: `kind` text, action, if, with, range, break or continue."""

    __slots__ = ("body", "kind", "otherwise", "pipe", "text")

    def __init__(self, kind: str, text: str = "", pipe: Pipe | None = None) -> None:
        self.kind, self.text, self.pipe = kind, text, pipe
        self.body: list[Node] = []
        self.otherwise: list[Node] = []


def parse(source: str) -> list[Node]:
    """Read a template. Raises TemplateError."""
    return _Reader(_pieces(source)).whole()


def _pieces(source: str) -> list[str | list[Token]]:
    """The template as texts and actions in turn, trim marks and comments done."""
    pieces: list[str | list[Token]] = []
    position, trim = 0, False
    while (start := source.find("{{", position)) >= 0:
        text = source[position:start].lstrip(_SPACE) if trim else source[position:start]
        body = start + 2
        if source.startswith("- ", body):
            text = text.rstrip(_SPACE)
            body += 2
        line = source.count("\n", 0, start) + 1
        tokens, position, trim = _action(source, body, line, source.rfind("\n", 0, start) + 1)
        pieces += [text, tokens]
    pieces.append(source[position:].lstrip(_SPACE) if trim else source[position:])
    return pieces


def _action(source: str, position: int, line: int, line_start: int) -> tuple[list[Token], int, bool]:
    """The words of one action, where it ends, and whether it trims what follows."""
    tokens: list[Token] = []
    if source.startswith("/*", position):
        end = source.find("*/", position)
        trim = source.startswith(" -", end + 2)
        if end < 0 or not source.startswith("}}", end + 2 + 2 * trim):
            raise TemplateError(f"template: :{line}: unclosed comment")
        return tokens, end + 4 + 2 * trim, trim
    spaced = False
    while position < len(source):
        for close, trim in ((" -}}", True), ("}}", False)):
            if source.startswith(close, position):
                return tokens, position + len(close), trim
        if source[position] in _SPACE:
            position, spaced = position + 1, True
            continue
        where = f":{line}:{position - line_start}"
        token, position = _token(source, position, where)
        token.spaced, spaced = spaced, False
        tokens.append(token)
    raise TemplateError(f"template: :{line}: unclosed action")


def _token(source: str, position: int, where: str) -> tuple[Token, int]:
    letter = source[position]
    if letter in "\"'`":
        value, end = _string(source, position, where)
        return Token("literal", source[position:end], where, value), end
    for mark in _PUNCTUATION:
        if source.startswith(mark, position):
            return Token(mark, mark, where), position + len(mark)
    end = position + 1
    if letter.isdigit() or (letter in "+-" and source[end : end + 1].isdigit()):
        while end < len(source) and (source[end].isalnum() or source[end] in "._"):
            end += 1
        return Token("literal", source[position:end], where, _number(source[position:end], where)), end
    while end < len(source) and (source[end].isalnum() or source[end] == "_"):
        end += 1
    word = source[position:end]
    if letter == ".":
        return Token("dot" if word == "." else "field", word, where), end
    if letter == "$":
        return Token("variable", word, where), end
    if letter.isalpha() or letter == "_":
        if word in _WORDS:
            return Token("literal", word, where, _WORDS[word]), end
        return Token("literal", word, where, None) if word == "nil" else Token("name", word, where), end
    raise TemplateError(f"template: {where.rpartition(':')[0]}: unexpected {letter!r} in operand")


def _number(word: str, where: str) -> int | float:
    for kind in (lambda text: int(text, 0), float):
        try:
            return kind(word)
        except ValueError:
            continue
    raise TemplateError(f'template: {where.rpartition(":")[0]}: bad number syntax: "{word}"')


def _string(source: str, position: int, where: str) -> tuple[str | int, int]:
    """A quoted string, a raw string or a character constant (its code), and where it ends."""
    quote, text, position = source[position], "", position + 1
    while position < len(source) and source[position] != quote:
        letter = source[position]
        if letter == "\\" and quote != "`":
            position += 1
            letter = _ESCAPES.get(source[position : position + 1], source[position : position + 1])
        text += letter
        position += 1
    if position >= len(source):
        raise TemplateError(f"template: {where.rpartition(':')[0]}: unterminated quoted string")
    return (ord(text) if quote == "'" and len(text) == 1 else text), position + 1


class _Reader:
    """Makes the tree out of texts and actions."""

    def __init__(self, pieces: list[str | list[Token]]) -> None:
        self._pieces, self._position = pieces, 0

    def whole(self) -> list[Node]:
        nodes, closing = self._nodes()
        if closing:
            raise TemplateError(f"template: {_line(closing)}: unexpected {{{{{closing[0].text}}}}}")
        return nodes

    def _nodes(self) -> tuple[list[Node], list[Token]]:
        """Nodes up to the `end` or `else` that closes them; that action's words."""
        nodes: list[Node] = []
        while self._position < len(self._pieces):
            piece = self._pieces[self._position]
            self._position += 1
            if isinstance(piece, str):
                if piece:
                    nodes.append(Node("text", piece))
                continue
            if not piece:
                continue
            word = piece[0].text if piece[0].kind == "name" else ""
            if word in ("end", "else"):
                return nodes, piece
            if word in ("if", "with", "range"):
                nodes.append(self._block(word, piece))
            elif word in ("break", "continue"):
                nodes.append(Node(word))
            else:
                nodes.append(Node("action", pipe=_pipe(piece)))
        return nodes, []

    def _block(self, kind: str, words: list[Token]) -> Node:
        if len(words) == 1:
            raise TemplateError(f"template: {_line(words)}: missing value for {kind}")
        node = Node(kind, pipe=_pipe(words[1:]))
        node.body, closing = self._nodes()
        if closing and closing[0].text == "else":
            if len(closing) > 1:  # `else if …` is one block inside, closed by the same `end`
                node.otherwise = [self._block(closing[1].text, closing[1:])]
                return node
            node.otherwise, closing = self._nodes()
        if not closing or closing[0].text != "end":
            raise TemplateError(f"template: {_line(words)}: unexpected EOF")
        return node


def _line(words: list[Token]) -> str:
    return words[0].where.rpartition(":")[0]


def _pipe(words: list[Token]) -> Pipe:
    pipe, rest = Pipe(), words
    for index, token in enumerate(words):
        if token.kind in (":=", "=") and all(w.kind in ("variable", ",") for w in words[:index]):
            pipe.variables = [w.text for w in words[:index] if w.kind == "variable"]
            pipe.declares = token.kind == ":="
            rest = words[index + 1 :]
            break
    position = _commands(pipe, rest, 0)
    if position < len(rest):
        raise TemplateError(f"template: {_line(words)}: unexpected right paren")
    return pipe


def _commands(pipe: Pipe, words: list[Token], position: int) -> int:
    """Read commands up to the end or a closing parenthesis; where that is."""
    command: list[Operand] = []
    while position < len(words) and words[position].kind != ")":
        token = words[position]
        if token.kind == "|":
            _end_command(pipe, command, words)
            command = []
            position += 1
            continue
        operand, position = _operand(words, position)
        command.append(operand)
    _end_command(pipe, command, words)
    return position


def _end_command(pipe: Pipe, command: list[Operand], words: list[Token]) -> None:
    if not command:
        raise TemplateError(f"template: {_line(words)}: missing value for command" if words else "missing value")
    pipe.commands.append(command)


def _operand(words: list[Token], position: int) -> tuple[Operand, int]:
    token = words[position]
    position += 1
    if token.kind == "(":
        inner = Pipe()
        position = _commands(inner, words, position)
        if position >= len(words):
            raise TemplateError(f"template: {_line([token])}: unclosed left paren")
        operand = Operand("pipe", inner, "(", token.where)
        position += 1
    elif token.kind == "field":
        operand = Operand("dot", None, token.text, token.where)
        operand.fields.append(token.text[1:])
    elif token.kind in ("dot", "variable", "literal", "name"):
        operand = Operand(token.kind, token.value, token.text, token.where)
    else:
        raise TemplateError(f'template: {_line([token])}: unexpected "{token.text}" in command')
    while position < len(words) and words[position].kind == "field" and not words[position].spaced:
        operand.fields.append(words[position].text[1:])
        operand.text += words[position].text
        position += 1
    return operand, position

"""Docker's command line grammar: what a command is made of, and how words become options.

A flag is a row of a table, a command is a value; nothing is registered by running code. The rules are those of
pflag, which Docker uses: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-abc` for several
switches, `--rm=false`, `--` ends the flags; a command that carries another command line (`run`, `exec`,
`top`) stops at the first word that is no flag. The messages are pflag's, too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from bastide.client import Client

    Flag = tuple[str, str, str, str]
    """Long name, short name or "", kind, text of the help."""
    Run = Callable[[Client, "Options"], int]

# Kinds: how a flag's word is read, and what the help prints after its name.
SWITCH, STRING, LIST, INT, BYTES = "", "string", "list", "int", "bytes"
ON = "on"  # a switch that is on unless turned off
DECIMAL, DURATION, FILTER, MAP = "decimal", "duration", "filter", "map"

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_MANY = (LIST, FILTER, MAP)


class UsageError(Exception):
    """The command line itself is wrong. `code` is the exit status."""

    def __init__(self, message: str, code: int = 125) -> None:
        super().__init__(message)
        self.code = code


class CommandError(Exception):
    """A command failed on this side: one line to print and the exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Command:
    """A command: its arguments (`usage`, at least `minimum`, at most `maximum`), flags and function.

    `carries`: the words from the first argument on belong to another program. `bare`: everything after
    the command's name is an argument. `examples` are pairs of a command line and what it does.
    """

    __slots__ = ("bare", "carries", "details", "examples", "flags", "maximum", "minimum", "run", "usage")

    def __init__(
        self,
        run: Run,
        usage: str = "",
        flags: Sequence[Flag] = (),
        minimum: int = 0,
        maximum: int | None = None,
        *,
        carries: bool = False,
        bare: bool = False,
        examples: Sequence[tuple[str, str]] = (),
        details: str = "",
    ) -> None:
        self.run, self.usage, self.flags = run, usage, flags
        self.minimum, self.maximum = minimum, maximum
        self.carries, self.bare, self.examples, self.details = carries, bare, examples, details


class Options:
    """What a command line said: values by long name, `arguments` in order, `command` as it was called."""

    __slots__ = ("arguments", "command", "values")

    def __init__(self, command: str) -> None:
        self.command = command
        self.values: dict[str, Any] = {}
        self.arguments: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def on(self, name: str, default: bool = False) -> bool:
        """Whether a switch is on."""
        return bool(self.values.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag that may be given once (the last one counts)."""
        return str(self.values.get(name, default))

    def number(self, name: str, default: int = 0) -> int:
        """The value of a flag that counts something."""
        return int(self.values.get(name, default))

    def maybe(self, name: str) -> int | None:
        """The number that was given, None when there was none."""
        value = self.values.get(name)
        return None if value is None else int(value)

    def all(self, name: str) -> list[str]:
        """The values of a flag that may be repeated."""
        return list(self.values.get(name, ()))


def parse(name: str, command: Command, words: Sequence[str]) -> Options:
    """Read the words after a command's name. Raises UsageError."""
    options = Options(name)
    if command.bare:
        options.arguments = list(words)
    else:
        _read(command, words, options)
    if "help" not in options:
        check_count(name, command, len(options.arguments))
    return options


def check_count(name: str, command: Command, count: int) -> None:
    """Raise UsageError unless that many arguments are allowed."""
    low, high = command.minimum, command.maximum
    if high is not None and low == high and count != low:
        wanted = "accepts no arguments" if low == 0 else f"requires {_arguments(low)}"
    elif count < low:
        wanted = f"requires at least {_arguments(low)}"
    elif high is not None and count > high:
        wanted = f"requires at most {_arguments(high)}"
    else:
        return
    raise UsageError(f"bastide: 'bastide {name}' {wanted}", 1)


def _arguments(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


def _read(command: Command, words: Sequence[str], options: Options) -> None:
    position, end = 0, len(words)
    while position < end:
        word = words[position]
        position += 1
        if word == "--":
            options.arguments.extend(words[position:])
            return
        if len(word) < 2 or word[0] != "-":
            options.arguments.append(word)
            if command.carries:
                options.arguments.extend(words[position:])
                return
        elif word[1] == "-":
            position = _long(command.flags, word[2:], words, position, options)
        else:
            position = _cluster(command.flags, word[1:], words, position, options)


def _long(flags: Sequence[Flag], word: str, words: Sequence[str], position: int, options: Options) -> int:
    name, given, value = word.partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: --{word}")
    flag = _named(flags, 0, name)
    if flag is None:
        if name == "help":
            options.values["help"] = True
            return position
        raise UsageError(f"unknown flag: --{name}")
    if not given:
        if flag[2] in (SWITCH, ON):
            value = "true"
        elif position == len(words):
            raise UsageError(f"flag needs an argument: --{name}")
        else:
            value, position = words[position], position + 1
    store(flag, value, options)
    return position


def _cluster(flags: Sequence[Flag], letters: str, words: Sequence[str], position: int, options: Options) -> int:
    for index, letter in enumerate(letters):
        flag = _named(flags, 1, letter)
        if flag is None:
            if letter == "h":
                options.values["help"] = True
                return position
            raise UsageError(f"unknown shorthand flag: {letter!r} in -{letters}")
        rest = letters[index + 1 :]
        if rest.startswith("="):
            store(flag, rest[1:], options)
            return position
        if flag[2] in (SWITCH, ON):
            store(flag, "true", options)
            continue
        if rest:
            store(flag, rest, options)
            return position
        if position == len(words):
            raise UsageError(f"flag needs an argument: {letter!r} in -{letters[index:]}")
        store(flag, words[position], options)
        return position + 1
    return position


def _named(flags: Sequence[Flag], column: int, name: str) -> Flag | None:
    for flag in flags:
        if flag[column] == name:
            return flag
    return None


def store(flag: Flag, word: str, options: Options) -> None:
    """Take in one value of a flag. Raises UsageError with pflag's text."""
    name, short, kind, _ = flag
    try:
        if kind in _MANY:
            if kind == FILTER and "=" not in word and word:
                raise ValueError("bad format of filter (expected name=value)")
            options.values.setdefault(name, []).append(word)
        else:
            options.values[name] = _value(kind, word)
    except ValueError as error:
        spelling = f"-{short}, --{name}" if short else f"--{name}"
        raise UsageError(f'invalid argument "{word}" for "{spelling}" flag: {error}') from None


def _value(kind: str, word: str) -> Any:
    if kind in (SWITCH, ON):
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise ValueError(f'strconv.ParseBool: parsing "{word}": invalid syntax')
    if kind == INT:
        return integer(word)
    if kind in (BYTES, DECIMAL, DURATION):
        from bastide.cli.options import quantities

        if kind == BYTES:
            return quantities.size(word)
        return quantities.nanocpus(word) if kind == DECIMAL else quantities.duration(word)
    return word


def integer(word: str) -> int:
    """A whole number in Go's spelling. Raises ValueError with Go's text."""
    try:
        return int(word, 0) if word.strip() == word and not word.startswith("_") else int("")
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{word}": invalid syntax') from None

"""What each line of a Dockerfile says: one type an instruction, its arguments still with their variables in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from bastide.images.dockerfile.flags import Flags, duration
from bastide.images.dockerfile.lines import Heredoc, Node, ParseError
from bastide.model.errors import BastideError, InvalidArgument, Unsupported

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """What all have in common: the line it begins in and the whole of it, joined."""

    line: int
    original: str


class From(Instruction, frozen=True, kw_only=True):
    """`FROM [--platform=P] IMAGE [AS NAME]`."""

    image: str
    name: str = ""
    platform: str = ""


class Arg(Instruction, frozen=True, kw_only=True):
    """`ARG NAME[=DEFAULT] …`."""

    pairs: tuple[tuple[str, str | None], ...]


class Env(Instruction, frozen=True, kw_only=True):
    """`ENV NAME=VALUE …`."""

    pairs: tuple[tuple[str, str], ...]


class Label(Instruction, frozen=True, kw_only=True):
    """`LABEL NAME=VALUE …`."""

    pairs: tuple[tuple[str, str], ...]


class Copy(Instruction, frozen=True, kw_only=True):
    """`COPY` and, with `add`, `ADD`. `documents` are the here-documents among the sources, by their words."""

    add: bool
    sources: tuple[str, ...]
    target: str
    origin: str = ""
    owner: str = ""
    mode: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git: bool = False
    documents: tuple[Heredoc, ...] = ()


class Run(Instruction, frozen=True, kw_only=True):
    """`RUN`. `words` are the exec form's, or one string for the shell. `script`: the here-document is a program."""

    words: tuple[str, ...]
    shell: bool
    mounts: tuple[str, ...] = ()
    network: str = ""
    script: str = ""


class Command(Instruction, frozen=True, kw_only=True):
    """`CMD` or, with `entrypoint`, `ENTRYPOINT`."""

    entrypoint: bool
    words: tuple[str, ...]
    shell: bool


class Expose(Instruction, frozen=True, kw_only=True):
    """`EXPOSE PORT[/PROTOCOL] …`, uncut: a variable may hold several."""

    text: str


class Volume(Instruction, frozen=True, kw_only=True):
    """`VOLUME PATH …`."""

    paths: tuple[str, ...]


class User(Instruction, frozen=True, kw_only=True):
    """`USER NAME[:GROUP]`."""

    user: str


class Workdir(Instruction, frozen=True, kw_only=True):
    """`WORKDIR PATH`."""

    path: str


class StopSignal(Instruction, frozen=True, kw_only=True):
    """`STOPSIGNAL SIGNAL`."""

    signal: str


class Maintainer(Instruction, frozen=True, kw_only=True):
    """`MAINTAINER NAME`."""

    name: str


class OnBuild(Instruction, frozen=True, kw_only=True):
    """`ONBUILD INSTRUCTION`, kept as it is written."""

    trigger: str


class HealthCheck(Instruction, frozen=True, kw_only=True):
    """`HEALTHCHECK`; `test` as in the configuration, times in nanoseconds."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Shell(Instruction, frozen=True, kw_only=True):
    """`SHELL ["program", "argument"]`."""

    words: tuple[str, ...]


def read(node: Node, escape: str) -> Instruction:
    """The instruction of a line. Raises ParseError; Unsupported for what is refused by name."""
    reader = _READERS.get(node.command)
    if reader is None:
        raise ParseError(node.first, f"unknown instruction: {node.command}")
    try:
        return reader(node, escape)
    except (ParseError, Unsupported):
        raise
    except BastideError as error:
        raise ParseError(node.first, error.message) from error


# -- arguments ---------------------------------------------------------------------------------


def json_list(text: str) -> tuple[str, ...] | None:
    """The words of the exec form, None when the text is not in it. Raises InvalidArgument for a list of others."""
    if not text.startswith("["):
        return None
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(word, str) for word in found):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(found)


def split_words(text: str, escape: str) -> list[str]:
    """Words between spaces; quotes and escapes hold them together and stay in them."""
    words, word, quote, begun, at = [], "", "", False, 0
    while at < len(text):
        sign = text[at]
        if sign == escape and quote != "'":
            word, begun = word + text[at : at + 2], True
            at += 2
            continue
        if not quote and sign.isspace():
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            if quote:
                quote = "" if sign == quote else quote
            elif sign in "\"'":
                quote = sign
            word, begun = word + sign, True
        at += 1
    return [*words, word] if begun else words


def _several(command: str, count: int, least: int) -> None:
    if count < least:
        raise InvalidArgument(f"{command} requires at least {'one argument' if least == 1 else 'two arguments'}")


def _no_flags(node: Node) -> None:
    Flags(node.flags, ())


def _one(node: Node) -> str:
    _no_flags(node)
    if not node.rest.strip():
        raise InvalidArgument(f"{node.command} requires exactly one argument")
    return node.rest.strip()


def _name_values(node: Node, escape: str) -> tuple[tuple[str, str], ...]:
    _no_flags(node)
    words = split_words(node.rest, escape)
    _several(node.command, len(words), 1)
    if "=" not in words[0]:
        parts = node.rest.split(None, 1)
        if len(parts) < 2:
            raise InvalidArgument(f"{node.command} must have two arguments")
        return ((parts[0], parts[1].strip()),)
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f"syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not name:
            raise InvalidArgument(f"{node.command} names can not be blank")
        found.append((name, value))
    return tuple(found)


# -- one reader an instruction -----------------------------------------------------------------


def _from(node: Node, escape: str) -> Instruction:
    flags = Flags(node.flags, ("platform",))
    words = node.rest.split()
    if len(words) == 1:
        name = ""
    elif len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise InvalidArgument(
                f"invalid name for build stage: {words[2]!r}, name can't start with a number or contain symbols"
            )
    else:
        raise InvalidArgument("FROM requires either one or three arguments")
    return From(line=node.first, original=node.original, image=words[0], name=name, platform=flags.text("platform"))


def _arg(node: Node, escape: str) -> Instruction:
    _no_flags(node)
    words = split_words(node.rest, escape)
    _several("ARG", len(words), 1)
    found: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise InvalidArgument(f"ARG names must be letters, digits and underscores, not {name!r}")
        found.append((name, value if equals else None))
    return Arg(line=node.first, original=node.original, pairs=tuple(found))


def _env(node: Node, escape: str) -> Instruction:
    return Env(line=node.first, original=node.original, pairs=_name_values(node, escape))


def _label(node: Node, escape: str) -> Instruction:
    return Label(line=node.first, original=node.original, pairs=_name_values(node, escape))


def _copy(node: Node, escape: str) -> Instruction:
    add = node.command == "ADD"
    known = ("chown", "chmod", "link") + (("checksum", "keep-git-dir") if add else ("from", "parents"))
    flags = Flags(node.flags, known, ("exclude",))
    words = list(json_list(node.rest) or node.rest.split())
    if len(words) < 2:
        said = "at least two arguments" + (
            ", but only one was provided. Destination could not be determined" if words else ""
        )
        raise InvalidArgument(f"{node.command} requires {said}")
    if flags.given("from") and not flags.text("from"):
        raise InvalidArgument("COPY --from needs the name of a stage or an image")
    return Copy(
        line=node.first,
        original=node.original,
        add=add,
        sources=tuple(words[:-1]),
        target=words[-1],
        origin=flags.text("from"),
        owner=flags.text("chown"),
        mode=flags.text("chmod"),
        link=flags.on("link"),
        parents=flags.on("parents"),
        exclude=flags.all("exclude"),
        checksum=flags.text("checksum"),
        keep_git=flags.on("keep-git-dir"),
        documents=node.heredocs,
    )


def _run(node: Node, escape: str) -> Instruction:
    flags = Flags(node.flags, ("network", "security"), ("mount", "device"))
    if flags.text("network") not in ("", "default", "none", "host"):
        raise InvalidArgument(f"invalid network mode: {flags.text('network')}: choose one of default, none, host")
    if flags.text("security") not in ("", "sandbox"):
        raise Unsupported("RUN --security=insecure is not offered")
    if flags.all("device"):
        raise Unsupported("RUN --device is not offered")
    words = json_list(node.rest)
    script = ""
    if words is None:
        words, script = _shell_line(node)
    _several("RUN", len([word for word in words if word]), 1)
    return Run(
        line=node.first,
        original=node.original,
        words=words,
        shell=json_list(node.rest) is None,
        mounts=flags.all("mount"),
        network=flags.text("network"),
        script=script,
    )


def _shell_line(node: Node) -> tuple[tuple[str, ...], str]:
    """The text for the shell, and the program when a here-document is one."""
    documents = node.heredocs
    if not documents:
        return (node.rest,), ""
    alone = len(documents) == 1 and len(node.rest.split()) == 1
    if alone and documents[0].content.startswith("#!"):
        return (f"/dev/pipes/{documents[0].name}",), documents[0].content
    if alone:
        return (documents[0].content,), ""
    return ("\n".join([node.rest, *(document.content + document.name for document in documents)]),), ""


def _command(node: Node, escape: str) -> Instruction:
    _no_flags(node)
    words = json_list(node.rest)
    shell = words is None
    if words is None:
        words = (node.rest,) if node.rest else ()
    entrypoint = node.command == "ENTRYPOINT"
    return Command(line=node.first, original=node.original, entrypoint=entrypoint, words=words, shell=shell)


def _expose(node: Node, escape: str) -> Instruction:
    _no_flags(node)
    _several("EXPOSE", len(node.rest.split()), 1)
    return Expose(line=node.first, original=node.original, text=node.rest)


def _volume(node: Node, escape: str) -> Instruction:
    _no_flags(node)
    words = json_list(node.rest)
    paths = words if words is not None else tuple(node.rest.split())
    _several("VOLUME", len(paths), 1)
    return Volume(line=node.first, original=node.original, paths=paths)


def _user(node: Node, escape: str) -> Instruction:
    return User(line=node.first, original=node.original, user=_one(node))


def _workdir(node: Node, escape: str) -> Instruction:
    return Workdir(line=node.first, original=node.original, path=_one(node))


def _stop_signal(node: Node, escape: str) -> Instruction:
    return StopSignal(line=node.first, original=node.original, signal=_one(node))


def _maintainer(node: Node, escape: str) -> Instruction:
    return Maintainer(line=node.first, original=node.original, name=_one(node))


def _on_build(node: Node, escape: str) -> Instruction:
    _no_flags(node)
    trigger = re.sub(r"^\s*ONBUILD\s*", "", node.original, flags=re.IGNORECASE)
    if not trigger:
        raise InvalidArgument("ONBUILD requires at least one argument")
    word = trigger.split(None, 1)[0].upper()
    if word == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise InvalidArgument(f"{word} isn't allowed as an ONBUILD trigger")
    if word not in _READERS:
        raise InvalidArgument(f"unknown instruction: {word}")
    return OnBuild(line=node.first, original=node.original, trigger=trigger)


def _health(node: Node, escape: str) -> Instruction:
    flags = Flags(node.flags, ("interval", "timeout", "start-period", "start-interval", "retries"))
    kind, _, rest = node.rest.partition(" ")
    kind, rest = kind.upper(), rest.strip()
    if kind == "NONE":
        if rest:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        test: tuple[str, ...] = ("NONE",)
    elif kind == "CMD":
        words = json_list(rest)
        if not rest or words == ():
            raise InvalidArgument("missing command after HEALTHCHECK CMD")
        test = ("CMD-SHELL", rest) if words is None else ("CMD", *words)
    else:
        raise InvalidArgument(
            f"unknown type {kind!r} in HEALTHCHECK (try CMD)" if kind else "HEALTHCHECK requires at least one argument"
        )
    retries = flags.text("retries") or "0"
    if not retries.isdigit():
        raise InvalidArgument(f"--retries must be a number, not {retries!r}")
    return HealthCheck(
        line=node.first,
        original=node.original,
        test=test,
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=int(retries),
    )


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    value = duration(text, f"HEALTHCHECK --{name}")
    if 0 < value < 1_000_000:
        raise InvalidArgument(f"interval {name!r} cannot be less than 1ms")
    return value


def _shell(node: Node, escape: str) -> Instruction:
    _no_flags(node)
    words = json_list(node.rest)
    if not words:
        raise InvalidArgument("SHELL requires the arguments to be in JSON form")
    return Shell(line=node.first, original=node.original, words=words)


_READERS: dict[str, Callable[[Node, str], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _copy,
    "ENTRYPOINT": _command,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _health,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def names() -> Sequence[str]:
    """Every instruction that is known."""
    return tuple(_READERS)

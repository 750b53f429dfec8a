"""Stages: which instructions belong together, what they stand on, and which of them a build needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from bastide.images.dockerfile.instructions import Arg, Copy, From, Instruction, Run, read
from bastide.images.dockerfile.lines import ParseError, cut
from bastide.images.dockerfile.mounts import parse_mount
from bastide.images.dockerfile.words import Expander
from bastide.model.errors import InvalidArgument

SCRATCH = "scratch"
STAGE_LIMIT = 1000
INSTRUCTION_LIMIT = 10_000

# Variables that may be set for every step without being declared (Dockerfile reference, "Predefined ARGs").
PREDEFINED = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One FROM and what follows it. `base` is its image with the variables filled in; `platform` likewise.

    `parent` is the number of the stage that it stands on, -1 for an image or scratch.
    """

    number: int
    begin: From
    base: str
    platform: str
    parent: int
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """What others call it."""
        return self.begin.name or str(self.number)


class Dockerfile(msgspec.Struct, frozen=True, kw_only=True):
    """A whole Dockerfile. `arguments` are those before the first FROM, with their values; `heads` their lines."""

    stages: tuple[Stage, ...]
    heads: tuple[Arg, ...]
    arguments: dict[str, str | None]
    escape: str
    used: frozenset[str]
    """Build arguments that the part before the first FROM, or a FROM, took."""

    def find(self, name: str, before: int) -> int:
        """The number of the stage called `name` (or of that number) above stage `before`; -1 when there is none."""
        for stage in reversed(self.stages[:before]):
            if stage.begin.name and stage.begin.name == name.lower():
                return stage.number
        if name.isascii() and name.isdigit() and int(name) < before:
            return int(name)
        return -1

    def target(self, name: str) -> int:
        """The number of the stage to build; the last one when no name is given. Raises InvalidArgument."""
        if not name:
            return len(self.stages) - 1
        found = self.find(name, len(self.stages))
        if found < 0:
            raise InvalidArgument(
                f'failed to reach build target {name} in Dockerfile: target stage "{name}" could not be found'
            )
        return found

    def needs(self, stage: Stage) -> set[int]:
        """The stages that one stage takes something from, as far as can be told before it runs."""
        found = {stage.parent} if stage.parent >= 0 else set()
        for origin in _origins(stage):
            number = self.find(origin, stage.number)
            if number >= 0:
                found.add(number)
        return found

    def needed(self, target: int) -> list[int]:
        """Every stage that `target` stands on, itself included, in the Dockerfile's order."""
        wanted: set[int] = set()
        pending = [target]
        while pending:
            number = pending.pop()
            if number not in wanted:
                wanted.add(number)
                pending += self.needs(self.stages[number])
        return sorted(wanted)


def _origins(stage: Stage) -> Iterator[str]:
    for instruction in stage.instructions:
        if isinstance(instruction, Copy) and instruction.origin:
            yield instruction.origin
        elif isinstance(instruction, Run):
            for text in instruction.mounts:
                if "from=" in text:
                    yield parse_mount(text).origin


def parse(data: bytes, given: Mapping[str, str | None], platforms: Mapping[str, str]) -> Dockerfile:
    """A Dockerfile. `given` are the build arguments, `platforms` the variables TARGETPLATFORM and its kin.

    Raises ParseError, InvalidArgument and Unsupported.
    """
    source = cut(data)
    if len(source.nodes) > INSTRUCTION_LIMIT:
        raise InvalidArgument(f"the Dockerfile has more than {INSTRUCTION_LIMIT} instructions")
    return _Reader(source.escape, given, platforms).read([read(node, source.escape) for node in source.nodes])


class _Reader:
    def __init__(self, escape: str, given: Mapping[str, str | None], platforms: Mapping[str, str]) -> None:
        self._escape, self._given, self._platforms = escape, given, platforms
        self._arguments: dict[str, str | None] = {}
        self._used: set[str] = set()

    def read(self, instructions: list[Instruction]) -> Dockerfile:
        """Everything, ordered."""
        heads: list[Arg] = []
        groups: list[tuple[From, list[Instruction]]] = []
        for instruction in instructions:
            if isinstance(instruction, From):
                groups.append((instruction, []))
            elif groups:
                groups[-1][1].append(instruction)
            elif isinstance(instruction, Arg):
                heads.append(instruction)
                self._declare(instruction)
            else:
                raise ParseError(instruction.line, "no build stage in current context: a FROM must come first")
        if not groups:
            raise InvalidArgument("the Dockerfile has no FROM")
        if len(groups) > STAGE_LIMIT:
            raise InvalidArgument(f"the Dockerfile has more than {STAGE_LIMIT} stages")
        return self._ordered(heads, groups)

    def _ordered(self, heads: list[Arg], groups: list[tuple[From, list[Instruction]]]) -> Dockerfile:
        stages: list[Stage] = []
        names: dict[str, int] = {}
        for number, (begin, body) in enumerate(groups):
            base, platform = self._expanded(begin, begin.image), self._expanded(begin, begin.platform)
            if not base:
                raise ParseError(begin.line, f"base name ({begin.image}) should not be blank")
            stages.append(
                Stage(
                    number=number,
                    begin=begin,
                    base=base,
                    platform=platform,
                    parent=names.get(base.lower(), -1),
                    instructions=tuple(body),
                )
            )
            if begin.name:
                names[begin.name] = number
        return Dockerfile(
            stages=tuple(stages),
            heads=tuple(heads),
            arguments=self._arguments,
            escape=self._escape,
            used=frozenset(self._used),
        )

    def _variables(self) -> dict[str, str]:
        return dict(self._platforms) | {name: value for name, value in self._arguments.items() if value is not None}

    def _declare(self, instruction: Arg) -> None:
        for name, default in instruction.pairs:
            value = self._expanded(instruction, default) if default is not None else None
            if name in self._given:
                self._used.add(name)
                value = self._given[name] if self._given[name] is not None else value
            self._arguments[name] = value

    def _expanded(self, instruction: Instruction, text: str) -> str:
        try:
            return Expander(self._variables(), self._escape).word(text)
        except InvalidArgument as error:
            raise ParseError(instruction.line, error.message) from error


def read_trigger(text: str, line: int) -> Instruction:
    """An instruction that an image's ONBUILD holds. Raises ParseError, InvalidArgument, Unsupported."""
    source = cut(text.encode())
    if len(source.nodes) != 1:
        raise ParseError(line, f"an ONBUILD trigger holds {len(source.nodes)} instructions instead of one")
    found = read(source.nodes[0], source.escape)
    if isinstance(found, From):
        raise ParseError(line, "FROM isn't allowed as an ONBUILD trigger")
    return found

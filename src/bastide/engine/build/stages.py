"""The stages of a build: those that are needed, each in a task of its own as soon as something asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from bastide.engine.build import cache as caching
from bastide.engine.build.layers import Workshop
from bastide.engine.build.output import Output, Voice
from bastide.engine.build.state import State, document, from_image, from_scratch
from bastide.engine.build.steps import Steps, Tools
from bastide.engine.layers import Lease
from bastide.images.digest import digest_of
from bastide.images.dockerfile import instructions as dockerfile
from bastide.images.dockerfile.stages import SCRATCH, Dockerfile, Stage, read_trigger
from bastide.images.manifest import normal, parse_platform
from bastide.model.errors import Conflict
from bastide.model.image import Image, Platform

Resolve = Callable[[str, str, Voice], Awaitable[Image]]
"""Gives an image by reference and platform ("" for the build's), pulling it when it must."""


class Stages:
    """Runs the stages of one Dockerfile. Use it in a task group; an error in one ends them all."""

    def __init__(
        self,
        parsed: Dockerfile,
        target: int,
        platform: Platform,
        resolve: Resolve,
        output: Output,
        lease: Lease,
        workshop: Workshop,
        extra: list[dockerfile.Instruction],
    ) -> None:
        self._parsed, self._target, self._platform = parsed, target, platform
        self._resolve, self._lease, self._workshop = resolve, lease, workshop
        self._extra = extra
        self._output = output
        self._needed = parsed.needed(target)
        self._tasks: dict[int, asyncio.Task[State]] = {}
        self._images: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._numbers = self._count()

    def _count(self) -> dict[int, int]:
        """The number of each stage's first step; steps are counted in the Dockerfile's order."""
        numbers, following = {}, len(self._parsed.heads) + 1
        for number in self._needed:
            numbers[number] = following
            following += 1 + len(self._body(number))
        self._total = following - 1
        return numbers

    def _body(self, number: int) -> list[dockerfile.Instruction]:
        """A stage's instructions; the target has the labels of the command line at its end."""
        body = list(self._parsed.stages[number].instructions)
        return [*body, *self._extra] if number == self._target else body

    async def run(self, tools: Tools) -> State:
        """The state of the target. Raises the first error of any stage."""
        for at, head in enumerate(self._parsed.heads, 1):
            self._output.say(f"Step {at}/{self._total} : {head.original}\n")
        voices = {number: self._output.voice() for number in self._needed}
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for number in self._needed:
                    self._start(number, tools, voices[number])
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        return self._tasks[self._target].result()

    def _start(self, number: int, tools: Tools, voice: Voice) -> asyncio.Task[State]:
        assert self._group is not None
        if number not in self._tasks:
            work = self._stage(self._parsed.stages[number], tools, voice)
            self._tasks[number] = self._group.create_task(work, name=f"stage {number}")
        return self._tasks[number]

    # -- what stages take from each other ------------------------------------------------------

    async def root(self, name: str, stage: int, tools: Tools) -> Path:
        """The root of another stage's result, or of an image, read-only."""
        number = self._parsed.find(name, stage)
        if number >= 0:
            return await self._workshop.view((await self._result(number, tools)).diff_ids)
        if name.lower() == SCRATCH:
            return await self._workshop.view(())
        voice = self._output.voice()
        try:
            image = await self._image(name, "", voice)
        finally:
            voice.finish()
        return await self._workshop.view(image.diff_ids)

    async def _result(self, number: int, tools: Tools) -> State:
        """What another stage came to; one that only a trigger asks for was not started with the others."""
        task = self._tasks.get(number) or self._start(number, tools, self._output.voice())
        return await asyncio.shield(task)

    async def _image(self, reference: str, platform: str, voice: Voice) -> Image:
        """An image, looked up once a build and held."""
        key = (reference, platform)
        if key not in self._images:
            assert self._group is not None
            self._images[key] = self._group.create_task(self._held(reference, platform, voice))
        return await asyncio.shield(self._images[key])

    async def _held(self, reference: str, platform: str, voice: Voice) -> Image:
        image = await self._resolve(reference, platform, voice)
        await self._lease.add(image.id, *image.diff_ids, *(layer.digest for layer in image.layers))
        return image

    # -- one stage -----------------------------------------------------------------------------

    async def _stage(self, stage: Stage, tools: Tools, voice: Voice) -> State:
        at = self._numbers.get(stage.number, 0)
        try:
            voice.say(f"Step {at}/{self._total} : {stage.begin.original}\n")
            state, triggers = await self._begin(stage, tools, voice)
            known = short_id(state) if stage.parent >= 0 else state.base[7:19]
            voice.say(f" ---> {known}\n")
            steps = Steps(tools, stage.number, voice)
            if triggers:
                voice.say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
            for trigger in triggers:
                state = await steps.take(state, read_trigger(trigger, stage.begin.line))
            for instruction in self._body(stage.number):
                at += 1
                voice.say(f"Step {at}/{self._total} : {instruction.original}\n")
                state = await steps.take(state, instruction)
                voice.say(f" ---> {short_id(state)}\n")
        except Exception:
            # What was kept for later belongs to the error that is told now; others say nothing after it.
            voice.speak()
            raise
        voice.finish()
        return state

    async def _begin(self, stage: Stage, tools: Tools, voice: Voice) -> tuple[State, list[str]]:
        """The state that a FROM gives, and the triggers to run in it."""
        if stage.parent >= 0:
            state = await self._result(stage.parent, tools)
            config = msgspec.structs.replace(state.config, on_build=None)
            begun = msgspec.structs.replace(
                state,
                chain=caching.key(state.chain, "FROM"),
                config=config,
                variables={},
                command_set=False,
            )
            return begun, list(state.config.on_build or [])
        platform = parse_platform(stage.platform, self._platform) if stage.platform else self._platform
        if stage.base.lower() == SCRATCH:
            return from_scratch(normal(platform), caching.key("", SCRATCH, str(platform))), []
        image = await self._image(stage.base, stage.platform, voice)
        return from_image(image, caching.key("", "FROM", image.id)), list(image.config.on_build or [])


def short_id(state: State) -> str:
    """The id that the image would have, were this its last step; twelve digits."""
    return digest_of(msgspec.json.encode(document(state)))[7:19]


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error itself: what came after it is its consequence."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def check_platform(image: Image, wanted: str, host: Platform) -> None:
    """Raise Conflict, in Docker's words, when an image that is here is for another platform than asked for."""
    asked = parse_platform(wanted, host)
    own = normal(image.platform)
    if (own.os, own.architecture) != (asked.os, asked.architecture):
        raise Conflict(
            f"image with reference {image.id} was found but its platform ({own}) does not match the specified "
            f"platform ({asked})"
        )

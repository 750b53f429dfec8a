"""Who speaks when, and who waits for whom."""

from __future__ import annotations

import asyncio

from bastide.engine.build.output import KEPT, WAITING, Output


async def drained(output: Output) -> str:
    output.end()
    return "".join([message["stream"] async for message in output])


async def test_stages_speak_in_the_order_of_the_dockerfile() -> None:
    output = Output()
    first, second, third = output.voice(), output.voice(), output.voice()
    third.say("3")
    second.say("2")
    first.say("1")
    second.finish()
    second.say("2 late")
    first.say("1 again")
    first.finish()
    third.say("3 again")
    assert await drained(output) == "11 again22 late33 again"


async def test_a_loud_stage_does_not_wait_for_its_turn() -> None:
    output = Output()
    output.voice()
    loud = output.voice()
    loud.say("quiet")
    loud.say("x" * KEPT)
    assert len(await drained(output)) == KEPT + 5


async def test_who_speaks_waits_for_a_slow_client() -> None:
    output = Output()
    voice = output.voice()
    voice.say("x" * WAITING)
    waiting = asyncio.create_task(voice.output("more", error=False))
    await asyncio.sleep(0)
    assert not waiting.done()
    reader = aiter(output)
    await anext(reader)
    await asyncio.wait_for(waiting, 1)


async def test_errors_are_red() -> None:
    output = Output()
    await output.voice().output("bad", error=True)
    assert await drained(output) == "\x1b[91mbad\x1b[0m"


async def test_the_end_wakes_the_reader() -> None:
    output = Output()
    reading = asyncio.create_task(drained_by(output))
    await asyncio.sleep(0)
    output.say("last")
    output.end()
    assert await asyncio.wait_for(reading, 1) == ["last"]


async def drained_by(output: Output) -> list[str]:
    return [message["stream"] async for message in output]

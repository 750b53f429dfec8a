"""The figures, as a table: what is timed, on whom, how often; and what they must reach."""

from __future__ import annotations

import time

from bench import image_cases, reading
from bench.contenders import Contender
from bench.image import NAME
from bench.measure import Case, Goal, milliseconds
from bench.memory import pss
from bench.stage import Stage

ENGINES = ("docker", "podman", "bastide")
SETTLE = 2.0
"""Seconds that an engine is left alone before its memory is read."""


def _run(network: str, contender: Contender) -> float:
    return milliseconds(contender.run_true(NAME, network), contender.environment)


def _warm_up(contender: Contender, _stage: Stage) -> None:
    for _ in range(2):
        _run("bridge", contender)


def _begin_sleeper(contender: Contender, _stage: Stage) -> None:
    contender.sleeper = contender.start_sleeper(NAME)
    # The first one pays for what later ones find warm.
    milliseconds(contender.exec_true(contender.sleeper), contender.environment)


def _end_sleeper(contender: Contender, _stage: Stage) -> None:
    contender.remove(contender.sleeper)


def _gather(count: int, contender: Contender) -> None:
    contender.crowd = [contender.start_sleeper(NAME) for _ in range(count)]


def _disperse(contender: Contender, _stage: Stage) -> None:
    contender.remove(*contender.crowd)


def _pull(contender: Contender, _stage: Stage) -> float:
    contender.remove_image(NAME)
    return milliseconds(contender.pull(NAME), contender.environment)


def _idle_memory(contender: Contender, _stage: Stage) -> float:
    time.sleep(SETTLE)
    return pss(contender.daemons)


def _memory_per_container(count: int, contender: Contender) -> float:
    """What `count` containers add to an engine's processes, each; the workload itself is not counted."""
    before = pss(contender.daemons + contender.monitors)
    _gather(count, contender)
    time.sleep(SETTLE)
    after = pss(contender.daemons + contender.monitors)
    contender.remove(*contender.crowd)
    return (after - before) / count


CASES = (
    Case("idle", "idle memory of the daemon", "MB", (3, 1), ("docker", "bastide"), _idle_memory),
    Case("pull", "pull and unpack over loopback", "ms", (7, 2), ENGINES, _pull),
    Case(
        "run",
        "run --rm IMAGE true, bridge network",
        "ms",
        (25, 5),
        ENGINES + ("bastide vm",),
        lambda contender, _: _run("bridge", contender),
        prepare=_warm_up,
    ),
    Case(
        "run-arm64",
        "run --rm --platform linux/arm64 --isolation vm IMAGE true, bridge network",
        "ms",
        (15, 5),
        ("bastide arm64",),
        lambda contender, _: _run("bridge", contender),
        prepare=_warm_up,
    ),
    Case(
        "run-none",
        "run --rm --network none IMAGE true",
        "ms",
        (25, 5),
        ENGINES + ("crun", "bastide vm"),
        lambda contender, _: _run("none", contender),
    ),
    Case(
        "exec",
        "exec CONTAINER true",
        "ms",
        (25, 5),
        ENGINES + ("crun", "bastide vm"),
        lambda contender, _: milliseconds(contender.exec_true(contender.sleeper), contender.environment),
        prepare=_begin_sleeper,
        tidy=_end_sleeper,
    ),
    Case(
        "ps",
        "ps among many running containers",
        "ms",
        (15, 5),
        ENGINES + ("crun",),
        lambda contender, _: milliseconds(contender.listing(), contender.environment),
        prepare=lambda contender, stage: _gather(stage.crowd, contender),
        tidy=_disperse,
    ),
    Case(
        "memory",
        "memory that a container adds",
        "MB",
        (3, 1),
        ENGINES,
        lambda contender, stage: _memory_per_container(stage.crowd // 5, contender),
    ),
    Case(
        "vm-memory",
        "memory that a VM adds, its guest included",
        "MB",
        (2, 1),
        ("bastide vm",),
        lambda contender, stage: _memory_per_container(stage.vm_crowd, contender),
    ),
    Case(
        "read-volume",
        "read 100 MB of a volume, one file",
        "ms",
        (9, 3),
        ENGINES + ("bastide vm",),
        reading.volume,
        prepare=reading.prepare,
    ),
    Case(
        "read-root",
        "read 100 MB of the root, its biggest files",
        "ms",
        (9, 3),
        ENGINES + ("bastide vm",),
        reading.root,
        prepare=reading.prepare,
    ),
    *image_cases.CASES,
)


GOALS = (
    Goal("run", "bastide", "docker", 0.4, 0.2),
    Goal("run", "bastide vm", "docker", 1.5, 0.8),
    Goal("exec", "bastide", "docker", 0.5, 0.3),
    Goal("pull", "bastide", "docker", 0.8, 0.4),
    Goal("idle", "bastide", "", 80, 50),
    Goal("memory", "bastide", "", 3, 1.5),
    Goal("read-volume", "bastide vm", "", 2000, 1000),
    *image_cases.GOALS,
)

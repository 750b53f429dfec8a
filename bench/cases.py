"""The figures, as a table: what is timed, on whom, how often; and what they must reach."""

from __future__ import annotations

import statistics
import time

from bench import api_cases, image_cases, reading
from bench.contenders import BastideVm, BastideWarm, Contender
from bench.image import NAME
from bench.measure import BenchError, Case, Goal, milliseconds
from bench.memory import pss
from bench.stage import Stage

ENGINES = ("docker", "podman", "bastide")
SETTLE = 2.0
"""Seconds that an engine is left alone before its memory is read."""


def _run(network: str, contender: Contender) -> float:
    return milliseconds(contender.run_true(NAME, network), contender.environment)


def _warm_up(contender: Contender, _stage: Stage) -> None:
    if isinstance(contender, BastideVm | BastideWarm):
        contender.prewarm(NAME)
    for _ in range(2):
        _run("bridge", contender)


def _settle(contender: Contender, _stage: Stage) -> None:
    """Have the template that idle VMs come from, which is made when an image is used again."""
    for _ in range(2):
        contender.remove(contender.start_sleeper(NAME))
    time.sleep(5 * SETTLE)


def _cool_down(contender: Contender, _stage: Stage) -> None:
    """Nothing of it is to be in the way of the cases that follow."""
    if isinstance(contender, BastideWarm):
        contender.cool()


def _run_when_ready(contender: Contender, _stage: Stage) -> float:
    if isinstance(contender, BastideWarm):
        contender.ready()
    return _run("bridge", contender)


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


def _memory_per_vm(count: int, contender: Contender) -> float:
    """What further VMs add, each, when one runs."""
    first = contender.start_sleeper(NAME)
    try:
        return _memory_per_container(count, contender)
    finally:
        contender.remove(first)


def _disk_per_vm(count: int, contender: Contender) -> float:
    assert isinstance(contender, BastideVm)
    before = contender.disk()
    _gather(count, contender)
    for container in contender.crowd:
        contender.do("exec", container, "true")
    taken = contender.disk() - before
    contender.remove(*contender.crowd)
    return taken / count / 1e6


def _many(count: int, contender: Contender) -> float:
    """VMs started one after another, all kept: the last starts against the first, by medians of a tenth of them."""
    times, some = [], max(count // 10, 3)
    contender.crowd = []
    try:
        for _ in range(count):
            began = time.perf_counter()
            contender.crowd.append(contender.start_sleeper(NAME))
            times.append(time.perf_counter() - began)
        for container in contender.crowd:
            if contender.do("exec", container, "echo", "here") != "here":
                raise BenchError(f"{container} does not answer")
    finally:
        contender.remove(*contender.crowd)
    return statistics.median(times[-some:]) / statistics.median(times[:some])


def _clone(contender: Contender, _stage: Stage) -> float:
    """From the order to clone a running VM to the clone's first answer."""
    assert isinstance(contender, BastideVm)
    began = time.perf_counter()
    clone = contender.clone(contender.sleeper)
    contender.do("exec", clone, "true")
    taken = time.perf_counter() - began
    contender.remove(clone)
    return taken * 1000


_OUTPUT = 100
"""MB that are written where output is measured."""


def _output(contender: Contender, _stage: Stage) -> float:
    script = f"dd if=/dev/zero bs=100000 count={_OUTPUT * 10} 2>/dev/null"
    return milliseconds(contender.command("exec", contender.sleeper, "sh", "-c", script), contender.environment)


CASES = (
    Case("idle", "idle memory of the daemon", "MB", (3, 1), ("docker", "bastide"), _idle_memory),
    Case("pull", "pull and unpack over loopback", "ms", (7, 2), ENGINES, _pull),
    Case(
        "run",
        "run --rm IMAGE true, bridge network",
        "ms",
        (25, 5),
        (*ENGINES, "bastide vm", "bastide warm"),
        _run_when_ready,
        prepare=_warm_up,
        tidy=_cool_down,
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
        ENGINES + ("crun", "bastide vm", "bastide vm fixed"),
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
        lambda contender, stage: _memory_per_container(stage.crowd // 10, contender),
    ),
    Case(
        "vm-memory",
        "memory that an idle VM beyond the first adds, its guest included",
        "MB",
        (2, 1),
        ("bastide vm",),
        lambda contender, stage: _memory_per_vm(stage.vm_crowd, contender),
        prepare=_settle,
    ),
    Case(
        "vm-disk",
        "disk that a VM takes",
        "MB",
        (2, 1),
        ("bastide vm",),
        lambda contender, stage: _disk_per_vm(stage.vm_crowd, contender),
        prepare=_settle,
    ),
    Case(
        "vm-many",
        "many VMs one after another: start of the last ones, as multiple of the first",
        "times",
        (1, 1),
        ("bastide vm",),
        lambda contender, stage: _many(stage.vm_many, contender),
        prepare=_settle,
    ),
    Case(
        "vm-clone",
        "clone of a running VM, to its first answer",
        "ms",
        (11, 3),
        ("bastide vm",),
        _clone,
        prepare=_begin_sleeper,
        tidy=_end_sleeper,
    ),
    Case(
        "output",
        f"{_OUTPUT} MB of output through exec",
        "ms",
        (5, 2),
        ("docker", "bastide", "bastide vm"),
        _output,
        prepare=_begin_sleeper,
        tidy=_end_sleeper,
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
    *api_cases.CASES,
)


GOALS = (
    Goal("run", "bastide", "docker", 0.4, 0.2),
    Goal("run", "bastide vm", "docker", 0.9, 0.5),
    Goal("run", "bastide warm", "docker", 0.5, 0.25),
    Goal("exec", "bastide", "docker", 0.5, 0.3),
    Goal("exec", "bastide vm", "docker", 0.5, 0.2),
    Goal("vm-memory", "bastide vm", "", 45, 25),
    Goal("vm-disk", "bastide vm", "", 1, 0.3),
    Goal("vm-many", "bastide vm", "", 1.3, 1.1),
    Goal("vm-clone", "bastide vm", "", 600, 300),
    Goal("output", "bastide vm", "", _OUTPUT * 20, _OUTPUT * 10),
    Goal("pull", "bastide", "docker", 0.8, 0.4),
    Goal("idle", "bastide", "", 80, 50),
    Goal("memory", "bastide", "", 3, 1.5),
    Goal("read-volume", "bastide vm", "", 2000, 1000),
    *image_cases.GOALS,
    *api_cases.GOALS,
)

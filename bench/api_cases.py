"""The figures of an engine under its API: one client's turns, lists of many, streams of many bytes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.contenders import Contender
from bench.image import NAME
from bench.measure import TIMEOUT, BenchError, Case, Goal
from bench.stage import Stage

ENGINES = ("docker", "podman", "bastide")
SERVED = ("docker", "bastide")
"""Those that serve Docker's API here."""
CALLS = 100
"""Calls that are one sample of a throughput."""
MEGABYTES = 100
IN_A_ROW = 200
_LINE = 80
_WRITE = ("sh", "-c", f"yes {'x' * (_LINE - 1)} | head -c {MEGABYTES << 20}")


def _client(contender: Contender) -> Any:
    """docker-py, speaking to the contender. Raises BenchError where it is not installed."""
    try:
        import docker  # type: ignore[import-untyped]
    except ImportError as error:
        raise BenchError(
            "docker-py is not installed in this environment: scripts/test makes one that has it"
        ) from error
    return docker.DockerClient(base_url=contender.environment["DOCKER_HOST"], timeout=TIMEOUT)


def _elapsed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def _turn(contender: Contender, _stage: Stage) -> float:
    """A container's whole life through docker-py: create, start, wait, remove."""
    client = _client(contender)

    def live() -> None:
        container = client.containers.create(NAME, "true")
        container.start()
        container.wait()
        container.remove()

    try:
        return _elapsed(live)
    finally:
        client.close()


def _gather(contender: Contender, stage: Stage) -> None:
    contender.crowd = [contender.start_sleeper(NAME) for _ in range(stage.crowd)]


def _disperse(contender: Contender, _stage: Stage) -> None:
    contender.remove(*contender.crowd)


def _lists(contender: Contender, _stage: Stage) -> float:
    client = _client(contender)
    try:
        return _elapsed(lambda: [client.api.containers() for _ in range(CALLS)]) / CALLS
    finally:
        client.close()


def _inspects(contender: Contender, _stage: Stage) -> float:
    client = _client(contender)
    chosen = (contender.crowd * CALLS)[:CALLS]
    try:
        return _elapsed(lambda: [client.api.inspect_container(name) for name in chosen]) / CALLS
    finally:
        client.close()


def _away(contender: Contender, *words: str) -> float:
    """Milliseconds of a command whose output goes nowhere. Raises BenchError."""
    argv = contender.command(*words)
    began = time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:
        done = subprocess.run(
            argv, env=contender.environment, stdin=subprocess.DEVNULL, stdout=nowhere, timeout=TIMEOUT, check=False
        )
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: exit status {done.returncode}")
    return (time.perf_counter() - began) * 1000


def _begin_log(contender: Contender, _stage: Stage) -> None:
    """A container that says 100 MB in lines, to its end, with nobody listening."""
    begun = contender.do("run", "-d", "--network=none", "--log-opt=max-size=1g", NAME, *_WRITE)
    contender.sleeper = begun.splitlines()[-1]
    contender.do("wait", contender.sleeper)


def _write_log(contender: Contender, stage: Stage) -> float:
    spent = _elapsed(lambda: _begin_log(contender, stage))
    contender.remove(contender.sleeper)
    return spent


def _begin_files(contender: Contender, stage: Stage) -> None:
    source = stage.work / "copied"
    if not source.exists():
        source.write_bytes(os.urandom(1 << 20) * MEGABYTES)
    contender.sleeper = contender.start_sleeper(NAME)
    contender.do("cp", str(source), f"{contender.sleeper}:/there")


def _end(contender: Contender, _stage: Stage) -> None:
    contender.remove(contender.sleeper)


def _copy_in(contender: Contender, stage: Stage) -> float:
    return _away(contender, "cp", str(stage.work / "copied"), f"{contender.sleeper}:/in")


def _copy_out(contender: Contender, stage: Stage) -> float:
    target = stage.work / "out"
    spent = _away(contender, "cp", f"{contender.sleeper}:/there", str(target))
    target.unlink()
    return spent


def _in_a_row(contender: Contender, stage: Stage) -> float:
    """Containers started one after another, all of which stay."""
    count = IN_A_ROW if stage.crowd >= 100 else stage.crowd

    def begin() -> None:
        contender.crowd = [contender.start_sleeper(NAME) for _ in range(count)]

    spent = _elapsed(begin)
    contender.remove(*contender.crowd)
    return spent / count


CASES = (
    Case("api-run", "create, start, wait, remove through docker-py", "ms", (25, 5), SERVED, _turn),
    Case("api-ps", "a list of many containers", "ms", (9, 3), SERVED, _lists, prepare=_gather, tidy=_disperse),
    Case("api-inspect", "an inspect among many", "ms", (9, 3), SERVED, _inspects, prepare=_gather, tidy=_disperse),
    Case("log-write", f"a container that says {MEGABYTES} MB", "ms", (5, 2), ENGINES, _write_log),
    Case(
        "log-read",
        f"logs of {MEGABYTES} MB",
        "ms",
        (5, 2),
        ENGINES,
        lambda contender, _: _away(contender, "logs", contender.sleeper),
        prepare=_begin_log,
        tidy=_end,
    ),
    Case("cp-in", f"cp of {MEGABYTES} MB in", "ms", (5, 2), ENGINES, _copy_in, prepare=_begin_files, tidy=_end),
    Case("cp-out", f"cp of {MEGABYTES} MB out", "ms", (5, 2), ENGINES, _copy_out, prepare=_begin_files, tidy=_end),
    Case("row", f"{IN_A_ROW} starts in a row, each", "ms", (2, 1), ENGINES, _in_a_row),
)

GOALS = (
    Goal("api-run", "bastide", "docker", 0.5, 0.3),
    Goal("api-ps", "bastide", "docker", 2, 1),
    Goal("api-inspect", "bastide", "docker", 2, 1),
    Goal("log-write", "bastide", "docker", 1, 0.7),
    Goal("log-read", "bastide", "docker", 1, 0.7),
    Goal("cp-in", "bastide", "docker", 1, 0.7),
    Goal("cp-out", "bastide", "docker", 1, 0.7),
    Goal("row", "bastide", "docker", 0.5, 0.3),
)

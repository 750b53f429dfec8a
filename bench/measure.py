"""Samples: taken in turn over all contenders, so that what else the machine does falls on each of them alike."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.contenders import Contender
    from bench.stage import Stage

TIMEOUT = 300.0
"""Seconds after which a command of a contender counts as hung."""


class BenchError(Exception):
    """The bench cannot go on; the message is one line."""


@dataclass
class Samples:
    """What one contender showed in one case, in the case's unit; `failure` when it could not."""

    values: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the samples lies between these."""
        if len(self.values) < 2:
            return (self.values[0], self.values[0])
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (low, high)


@dataclass(frozen=True)
class Case:
    """One figure. `sample` takes it once from one contender that `prepare` has made ready.

    Parameters: `unit`, `ms` or `MB`; `rounds`, how many samples, and how many when in a hurry; `contenders`,
    the names of those that can do it.
    """

    name: str
    title: str
    unit: str
    rounds: tuple[int, int]
    contenders: tuple[str, ...]
    sample: Callable[[Contender, Stage], float]
    prepare: Callable[[Contender, Stage], None] = lambda _contender, _stage: None
    tidy: Callable[[Contender, Stage], None] = lambda _contender, _stage: None


@dataclass(frozen=True)
class Goal:
    """What a contender must reach in a case, and what it aims at: a ratio to docker, or the case's unit."""

    case: str
    contender: str
    against: str
    must: float
    aim: float


Results = dict[str, tuple[Case, dict[str, Samples]]]


def run(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a contender's command; its stdout. Raises BenchError with the last line it complained with."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(argv)}: no end after {TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        complaint = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise BenchError(f"{' '.join(argv)}: {complaint}")
    return done.stdout


def milliseconds(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    """How long a command takes from its start to its end."""
    began = time.perf_counter()
    run(argv, environment)
    return (time.perf_counter() - began) * 1000


def measure(cases: Sequence[Case], stage: Stage, *, quick: bool) -> Results:
    """Every case, one after another."""
    results: Results = {}
    for case in cases:
        taking_part = [contender for contender in stage.contenders if contender.name in case.contenders]
        _note(f"{case.title}: {', '.join(contender.name for contender in taking_part)}")
        results[case.name] = (case, _play(case, taking_part, stage, case.rounds[quick]))
    return results


def _play(case: Case, contenders: Sequence[Contender], stage: Stage, rounds: int) -> dict[str, Samples]:
    """One case: the contenders take turns, each round another one first; who fails once is out."""
    samples = {contender.name: Samples() for contender in contenders}

    def attempt(action: Callable[[Contender, Stage], float | None], contender: Contender) -> None:
        mine = samples[contender.name]
        if mine.failure:
            return
        try:
            value = action(contender, stage)
        except BenchError as error:
            mine.failure = str(error)
            _note(f"  failed: {error}")
        else:
            mine.values += [] if value is None else [value]

    for contender in contenders:
        attempt(case.prepare, contender)
    for turn in range(rounds):
        for position in range(len(contenders)):
            attempt(case.sample, contenders[(position + turn) % len(contenders)])
    for contender in contenders:
        attempt(case.tidy, contender)
    return samples


def _note(line: str) -> None:
    sys.stderr.write(line + "\n")

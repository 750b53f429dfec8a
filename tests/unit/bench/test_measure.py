"""Samples are taken in turn, and who fails is out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench.contenders import Contender
from bench.measure import BenchError, Case, Samples, measure, run


class Stage:
    def __init__(self, *names: str) -> None:
        self.contenders = [self.contender(name) for name in names]

    @staticmethod
    def contender(name: str) -> Contender:
        made = Contender(Path("/nonexistent"))
        made.name = name
        return made


def play(sample: Any, *names: str, quick: bool = False, **steps: Any) -> dict[str, Samples]:
    stage: Any = Stage(*names)
    case = Case("c", "a case", "ms", (4, 2), ("a", "b"), sample, **steps)
    return measure([case], stage, quick=quick)["c"][1]


def test_each_round_begins_with_another_contender() -> None:
    order: list[str] = []
    samples = play(lambda contender, _: order.append(contender.name) or 1.0, "a", "b", "c")
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert samples["a"].values == [1.0] * 4
    assert "c" not in samples


def test_quick_takes_fewer() -> None:
    assert len(play(lambda *_: 1.0, "a", quick=True)["a"].values) == 2


def test_a_failure_stops_that_contender_alone() -> None:
    def sample(contender: Contender, _stage: Any) -> float:
        if contender.name == "a":
            raise BenchError("no such thing")
        return 2.0

    samples = play(sample, "a", "b")
    assert (samples["a"].failure, samples["a"].values) == ("no such thing", [])
    assert samples["b"].values == [2.0] * 4


def test_a_failed_preparation_takes_no_sample() -> None:
    def prepare(*_: Any) -> None:
        raise BenchError("not ready")

    assert play(lambda *_: 1.0, "a", prepare=prepare)["a"].values == []


def test_median_and_quartiles() -> None:
    samples = Samples([5.0, 1.0, 2.0, 4.0, 3.0])
    assert samples.median == 3.0
    assert samples.quartiles == (2.0, 4.0)
    assert Samples([7.0]).quartiles == (7.0, 7.0)


def test_a_command_that_fails_tells_its_last_line() -> None:
    with pytest.raises(BenchError, match=r"sh -c .*: second$"):
        run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], {})

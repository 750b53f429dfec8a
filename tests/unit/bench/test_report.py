"""Goals are judged by medians; what was not measured is missed."""

from __future__ import annotations

import pytest
from bench.cases import CASES, GOALS
from bench.measure import Goal, Samples
from bench.report import _cell, _measured, _verdict

RATIO = Goal("run", "bastide", "docker", 0.4, 0.2)
AMOUNT = Goal("idle", "bastide", "", 80, 50)


@pytest.mark.parametrize(
    ("mine", "docker", "expected"),
    [(20.0, 100.0, "aim reached"), (40.0, 100.0, "must reached"), (41.0, 100.0, "missed")],
)
def test_ratio(mine: float, docker: float, expected: str) -> None:
    value = _measured(RATIO, {"bastide": Samples([mine]), "docker": Samples([docker])})
    assert _verdict(RATIO, value) == expected


def test_amount() -> None:
    assert _verdict(AMOUNT, _measured(AMOUNT, {"bastide": Samples([81.0, 60.0, 60.0])})) == "must reached"


@pytest.mark.parametrize("samples", [{}, {"bastide": Samples([1.0])}, {"bastide": Samples([], "it broke")}])
def test_no_figure_is_missed(samples: dict[str, Samples]) -> None:
    assert _verdict(RATIO, _measured(RATIO, samples)) == "missed"


def test_cell_shows_spread_and_ratio() -> None:
    assert _cell(Samples([10.0, 20.0, 30.0]), Samples([40.0])) == "20.0 (15.0-25.0) x0.50"


def test_every_goal_has_its_case() -> None:
    cases = {case.name: case for case in CASES}
    for goal in GOALS:
        assert goal.contender in cases[goal.case].contenders
        assert not goal.against or goal.against in cases[goal.case].contenders

"""`bastide` prints what docker printed of the same answers (recorded from Docker 28, see tests/docker_output.py)."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docker_output import CASES, GOLDEN, Wire, lines, same
from tests.unit.cli.conftest import Bastide

RECORDED: list[dict[str, Any]] = json.loads(GOLDEN.read_text())


class Replay:
    """Gives the recorded answers back, each to its request, in order."""

    def __init__(self) -> None:
        self.answers: list[list[str]] = []

    def __call__(self, method: str, target: str, _request: bytes) -> bytes:
        wanted = f"{method} {target}"
        for index, (asked, answer) in enumerate(self.answers):
            if asked == wanted:
                del self.answers[index]
                return answer.encode("latin-1")
        raise AssertionError(f"not recorded: {wanted}; record again")


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    made = Replay()
    wire = Wire(tmp_path / "s", made)
    monkeypatch.setenv("BASTIDE_HOST", f"unix://{tmp_path}/s")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield made
    wire.close()
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["line"])
def test_as_docker(
    case: dict[str, Any], replay: Replay, bastide: Bastide, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    replay.answers = [list(pair) for pair in case["answers"]]
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: case["now"])
        done = bastide(*shlex.split(case["line"]))
    assert same(done.out) == case["out"]
    assert same(done.err) == case["err"]
    assert done.code == case["code"]
    assert replay.answers == []


def test_everything_was_recorded() -> None:
    assert [case["line"] for case in RECORDED] == lines(CASES)

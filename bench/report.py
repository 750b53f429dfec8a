"""The results as tables for people, and as JSON for programs."""

from __future__ import annotations

import platform
import sys

import msgspec
from rich.console import Console
from rich.table import Table

from bench.cases import GOALS
from bench.measure import Goal, Results, Samples

REFERENCE = "docker"
WIDTH = 150
"""Columns of the tables where nobody told how many there are."""


def show(results: Results, emulator: str) -> None:
    """Print the figures of every contender, then what was to be reached; `emulator` is what ran the VMs, if any."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(
        f"Linux {platform.release()}, {platform.machine()}{emulator and f'; VMs by {emulator}'}; median (quartiles), "
        f"x is the ratio to {REFERENCE}"
    )
    console.print(_figures(results))
    console.print(_goals(results))
    for case, samples in results.values():
        for name, sample in samples.items():
            if sample.failure:
                console.print(f"{case.name}, {name}: {sample.failure}", highlight=False, markup=False)


def _figures(results: Results) -> Table:
    names = list(dict.fromkeys(name for _, samples in results.values() for name in samples))
    table = Table("figure", *names)
    for case, samples in results.values():
        row = [_cell(samples.get(name), samples.get(REFERENCE)) for name in names]
        table.add_row(f"{case.title}, {case.unit}", *row)
    return table


def _cell(sample: Samples | None, reference: Samples | None) -> str:
    if sample is None:
        return ""
    if sample.failure or not sample.values:
        return "failed"
    low, high = sample.quartiles
    text = f"{_number(sample.median)} ({_number(low)}-{_number(high)})"
    if reference and reference is not sample and reference.values:
        text += f" x{sample.median / reference.median:.2f}"
    return text


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _goals(results: Results) -> Table:
    table = Table("goal", "measured", "must", "aim", "")
    for goal in GOALS:
        if goal.case in results:
            case, samples = results[goal.case]
            unit = "x" if goal.against else f" {case.unit}"
            value = _measured(goal, samples)
            measured = "no figure" if value is None else f"{value:.2f}{unit}"
            title = f"{goal.contender}: {case.title}" + (f", against {goal.against}" if goal.against else "")
            table.add_row(title, measured, f"{goal.must:g}{unit}", f"{goal.aim:g}{unit}", _verdict(goal, value))
    return table


def _measured(goal: Goal, samples: dict[str, Samples]) -> float | None:
    mine, other = samples.get(goal.contender), samples.get(goal.against)
    if mine is None or mine.failure or not mine.values:
        return None
    if not goal.against:
        return mine.median
    return mine.median / other.median if other and other.values else None


def _verdict(goal: Goal, value: float | None) -> str:
    if value is None or value > goal.must:
        return "missed"
    return "aim reached" if value <= goal.aim else "must reached"


def encode(results: Results) -> bytes:
    """Every sample, by case and contender."""
    return msgspec.json.format(
        msgspec.json.encode(
            {
                name: {"title": case.title, "unit": case.unit, "samples": {who: s.values for who, s in samples.items()}}
                for name, (case, samples) in results.items()
            }
        )
    )

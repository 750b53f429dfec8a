"""Files and functions stay small enough to be read whole."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES = 800
FUNCTION_LINES = 80

PYTHON = sorted(path for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py"))
OTHERS = sorted(
    path
    for folder, pattern in (
        ("guest", "*.[ch]"),
        ("monitor", "*.[ch]"),
        ("scripts", "*"),
        ("packaging", "*"),
        ("bin", "*"),
    )
    for path in (ROOT / folder).rglob(pattern)
    if path.is_file() and path.suffix != ".pyc" and "build" not in path.relative_to(ROOT).parts
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON + OTHERS, ids=relative)
def test_file_is_short(path: Path) -> None:
    lines = len(path.read_bytes().splitlines())
    assert lines <= FILE_LINES, f"{relative(path)} has {lines} lines, more than {FILE_LINES}"


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{relative(path)}:{node.lineno} {node.name} has {length} lines, more than {FUNCTION_LINES}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, "\n".join(long)

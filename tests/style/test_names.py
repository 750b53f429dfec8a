"""Names say what a thing is: one noun for each meaning, no folder for things that had no place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "bastide").rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "style" not in path.parts)

VAGUE_MODULES = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "stuff", "base"}
OTHER_WORDS_FOR_CONTAINER = {"instance", "instances", "sandbox", "sandboxes", "box", "boxes"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bNotImplementedError\b")
NEVER_RUN = re.compile(r"pytest\.(mark\.(skip|skipif|xfail)|skip|xfail|importorskip)\b")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that the module itself gives to something, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.arg():
                yield node.lineno, node.arg


def words(name: str) -> set[str]:
    """`snake_case` and `CamelCase` apart, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_module_is_named_for_its_subject(path: Path) -> None:
    assert path.stem not in VAGUE_MODULES, f"{relative(path)}: say what is in it"
    assert path.parent.name not in VAGUE_MODULES, f"{relative(path)}: say what the folder holds"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_container_has_one_name(path: Path) -> None:
    wrong = [
        f"{relative(path)}:{line} {name}"
        for line, name in names(ast.parse(path.read_text()))
        if words(name) & OTHER_WORDS_FOR_CONTAINER
    ]
    assert not wrong, "say container:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_nothing_is_left_unfinished(path: Path) -> None:
    pattern = NEVER_RUN if path in TESTS else UNFINISHED
    wrong = [
        f"{relative(path)}:{number} {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_module_says_what_it_is(path: Path) -> None:
    source = path.read_text()
    assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{relative(path)} has no docstring"

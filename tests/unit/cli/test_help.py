"""Help pages and completion scripts, against what was written down (rewrite with BASTIDE_GOLDEN=write)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Bastide

from bastide.cli import commands, completion
from bastide.cli import help as pages

GOLDEN = Path(__file__).parents[2] / "golden" / "help"


def compare(name: str, content: str) -> None:
    path = GOLDEN / name
    if os.environ.get("BASTIDE_GOLDEN") == "write":
        path.write_text(content)
    assert content == path.read_text(), f"{path} differs: BASTIDE_GOLDEN=write rewrites it"


def test_top() -> None:
    compare("top.txt", pages.top(80))


@pytest.mark.parametrize("group", commands.GROUPS)
def test_groups(group: str) -> None:
    compare(f"{group}.txt", pages.group(group))


@pytest.mark.parametrize("name", sorted(commands.COMMANDS))
def test_pages(name: str) -> None:
    page = pages.page(name, commands.load(name), 80)
    compare(f"{name.replace(' ', '-')}-page.txt", page)
    assert all(len(line) <= 80 for line in page.split("Options:\n")[-1].split("\nExamples:")[0].splitlines())


def test_help_is_the_same_from_every_side(bastide: Bastide) -> None:
    page = bastide("run", "--help").out
    assert page.startswith("Usage:  bastide run [OPTIONS] IMAGE [COMMAND] [ARG...]\n")
    assert bastide("help", "run").out == page
    assert bastide("container", "run", "--help").out == page
    assert bastide("help").out == bastide("--help").out == bastide().out
    assert bastide("network", "--help").out == bastide("network").out


SYNTAX = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "-n"]}


@pytest.mark.parametrize("shell", sorted(completion.SHELLS))
def test_completion_is_a_script_of_its_shell(shell: str, bastide: Bastide, tmp_path: Path) -> None:
    script = bastide("completion", shell).out
    for word in ("--isolation", "network", "--filter", "restart"):
        assert word in script or word.removeprefix("--") in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([*SYNTAX[shell], tmp_path / "script"], check=True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["net"], {"network"}),
        (["network", "c"], {"connect", "create"}),
        (["run", "--isol"], {"--isolation"}),
        (["network", "create", "--sub"], {"--subnet"}),
        (["image", "pr"], {"prune"}),
    ],
)
def test_bash_completes(words: list[str], wanted: set[str], bastide: Bastide) -> None:
    line = " ".join(f"'{word}'" for word in ["bastide", *words])
    program = (
        f"{bastide('completion', 'bash').out}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; COMPREPLY=();"
        ' _bastide; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == wanted


def test_names_are_not_run_by_completion(bastide: Bastide, tmp_path: Path) -> None:
    program = (
        f"{bastide('completion', 'bash').out}\nbastide() {{ echo 'good-1 $(touch {tmp_path}/run) x;y `id` *'; }}\n"
        'COMP_WORDS=(bastide rm ""); COMP_CWORD=2; _bastide; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["good-1"]
    assert not (tmp_path / "run").exists()

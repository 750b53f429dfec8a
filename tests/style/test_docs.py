"""The documentation names what the code has: verbs of the contracts, dependencies, files that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bastide.network import NetworkDriver
from bastide.runtime import Runtime
from bastide.storage import Snapshotter

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")
CONTRACTS = {"runtime": Runtime, "snapshotter": Snapshotter, "network": NetworkDriver}


@pytest.mark.parametrize("page", CONTRACTS)
def test_contract_page_lists_exactly_its_verbs(page: str) -> None:
    text = (ROOT / "docs" / "contracts" / f"{page}.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(CONTRACTS[page].__abstractmethods__)
    assert len(listed) <= 10


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    listed = (ROOT / "packaging" / "packages.txt").read_text().splitlines()
    packages = {line.split()[1] for line in listed if line.split()[:1] in (["run"], ["guest"])}
    names = {Requirement(line).name for line in declared} | packages - {"python3", "python3-venv", "ca-certificates"}
    assert [name for name in sorted(names) if name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not dead

"""What gets installed: the locks name exact versions with hashes, of the public index only;
no file of the program is left out."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
IMPORTED_AS = {"dnspython": "dns"}
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PINNED = re.compile(r"^([a-z0-9.-]+)==(\S+) \\$", re.MULTILINE)


def pinned(lock: Path) -> dict[str, Version]:
    return {name: Version(version) for name, version in PINNED.findall(lock.read_text())}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_holds_versions_and_hashes_only(lock: Path) -> None:
    entries = [line for line in lock.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    wrong = [line for line in entries if not re.match(r"[a-z0-9.-]+==\S+ \\$|    --hash=sha256:[0-9a-f]{64}", line)]
    assert pinned(lock)
    assert not wrong, f"{lock.name}: {wrong}"


def test_runtime_lock_meets_the_declared_dependencies() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    locked = pinned(ROOT / "requirements" / "runtime.txt")
    for requirement in map(Requirement, declared):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in locked, f"{name} is declared but not locked: run scripts/lock"
        assert requirement.specifier.contains(locked[name]), f"{requirement} against {locked[name]}: run scripts/lock"


def test_test_lock_agrees_with_the_runtime_lock() -> None:
    runtime, test = pinned(ROOT / "requirements" / "runtime.txt"), pinned(ROOT / "requirements" / "test.txt")
    apart = {name for name in runtime.keys() & test.keys() if runtime[name] != test[name]}
    assert not apart


def test_every_file_of_the_program_is_packaged() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    left_out = [path.name for path in files if not any(fnmatch(path.name, pattern) for pattern in data)]
    assert not left_out


def test_every_declared_dependency_is_used() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    modules = {name: IMPORTED_AS.get(name, name) for name in (Requirement(line).name for line in declared)}
    unused = [
        name for name, module in modules.items() if not re.search(rf"(import|from) {re.escape(module)}\b", source)
    ]
    assert not unused

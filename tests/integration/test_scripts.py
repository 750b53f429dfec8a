"""What scripts/install and its like say when they cannot go on: one clear line, and nothing done."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts and the package list, where everybody may read them."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("scripts", "packaging"):
        shutil.copytree(ROOT / name, folder / name)
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    return folder


def refusal(argv: list[str], *, user: int | None = None, path: str = "") -> str:
    """What a script says that must fail."""
    environment = {"PATH": f"{path}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(argv, env=environment, user=user, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("script", ["install", "quickstart", "test", "fresh-root"])
def test_without_root(clone: Path, script: str) -> None:
    said = refusal([str(clone / "scripts" / script), *(["bookworm"] if script == "fresh-root" else [])], user=NOBODY)
    assert said.startswith(f"scripts/{script}: must run as root")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("script", ["install", "quickstart", "test"])
def test_on_an_unsupported_distribution(clone: Path, tmp_path: Path, script: str) -> None:
    release = tmp_path / "os-release"
    release.write_text("ID=plan9\nVERSION_ID=4\n")
    inside = f"mount --bind {release} /etc/os-release && exec {clone}/scripts/{script}"
    said = refusal(["unshare", "--mount", "bash", "-c", inside])
    assert "unsupported distribution plan9-4: it runs on debian-12, debian-13, ubuntu-24.04" in said
    assert len(said.splitlines()) == 1


def test_backports_of_another_release(clone: Path, tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text("ID=debian\nVERSION_ID=13\n")
    inside = f"mount --bind {release} /etc/os-release && exec {clone}/scripts/install --backports"
    said = refusal(["unshare", "--mount", "bash", "-c", inside])
    assert said == "scripts/install: --backports is for Debian 12: later releases have a QEMU that is as new\n"


def test_backports_that_cannot_be_had(clone: Path, tmp_path: Path) -> None:
    """Where apt looks is as it was."""
    programs, lists = tmp_path / "bin", tmp_path / "lists"
    for folder in (programs, lists):
        folder.mkdir()
    (programs / "apt-get").write_text('#!/bin/sh\necho "E: Failed to fetch bookworm-backports"\nexit 100\n')
    (programs / "apt-get").chmod(0o755)
    inside = f"mount --bind {lists} /etc/apt/sources.list.d && exec {clone}/scripts/install --backports"
    said = refusal(["unshare", "--mount", "bash", "-c", inside], path=str(programs)).splitlines()
    assert [line for line in said if "failed" in line] == said[-1:]
    assert "E: Failed to fetch bookworm-backports" in said[-1]
    assert list(lists.iterdir()) == []


def test_an_argument_that_nobody_knows(clone: Path) -> None:
    said = refusal([str(clone / "scripts" / "install"), "--fast"])
    assert said == "scripts/install: unknown argument --fast (usage: scripts/install [--backports])\n"


def test_with_a_package_that_cannot_be_had(clone: Path, tmp_path: Path) -> None:
    with (clone / "packaging" / "packages.txt").open("a") as listed:
        listed.write("run        package-of-nobody  *                        a test\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text(
        '#!/bin/sh\n[ "$1" = update ] && exit 0\necho "E: Unable to locate package package-of-nobody"\nexit 100\n'
    )
    (programs / "apt-get").chmod(0o755)
    said = refusal([str(clone / "scripts" / "install")], path=str(programs)).splitlines()
    assert "failed: E: Unable to locate package package-of-nobody" in said[-1]
    assert [line for line in said if "failed" in line] == said[-1:]

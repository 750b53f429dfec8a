"""bastide has every verb and flag of docker's command line but those that docs/docker-flags.md names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.clients.newer import docker_folder
from tests.living import CLI, ROOT

PAGE = ROOT / "docs" / "docker-flags.md"
_COMMAND = re.compile(r"^  ([a-z][\w-]*)\*?(?:  |$)", re.MULTILINE)
_FLAG = re.compile(r"^ +(?:-(\w), )?--([\w-]+)", re.MULTILINE)


def said(program: list[str], path: list[str], home: Path) -> str:
    """The page of help of a verb; empty when there is no such verb."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "DOCKER_HOST": "unix:///nonexistent"}
    done = subprocess.run([*program, *path, "--help"], capture_output=True, text=True, env=environment, check=False)
    return done.stdout if done.returncode == 0 else ""


def flags(page: str) -> dict[str, str]:
    """Long flags to their short form, empty where there is none."""
    return {f"--{long}": short for short, long in _FLAG.findall(page)}


def verbs(page: str) -> list[str]:
    parts = re.split(r"^[\w ]*Commands:$", page, flags=re.MULTILINE)[1:]
    return [name for part in parts for name in _COMMAND.findall(re.split(r"^\S", part, flags=re.MULTILINE)[0])]


def missing(docker: list[str], path: list[str], home: Path) -> list[str]:
    """What docker has below a verb and bastide has not, as `verb` or `verb --flag`."""
    found = []
    for verb in verbs(said(docker, path, home)):
        below = [*path, verb]
        theirs, ours = said(docker, below, home), said(CLI, below, home)
        name = " ".join(below)
        if name in absent_verbs():
            continue
        if not ours:
            found.append(name)
        elif verbs(theirs):
            found += missing(docker, below, home)
        else:
            own = flags(ours)
            for flag, short in flags(theirs).items():
                if flag not in own and flag != "--help":
                    found.append(f"{name} {flag}")
                elif short and own.get(flag) != short and flag != "--help":
                    found.append(f"{name} {flag} -{short}")
    return found


def absent_verbs() -> set[str]:
    return {word for word in re.findall("`([^`]+)`", PAGE.read_text()) if "--" not in word}


def absent_flags() -> set[str]:
    return set(re.findall(r"(?<!\w)--[\w-]+", PAGE.read_text()))


def test_what_docker_has(tmp_path: Path) -> None:
    docker = [str(docker_folder() / "docker")]
    lacking = missing(docker, [], tmp_path)
    known = absent_flags()
    assert [entry for entry in lacking if entry.split()[-1] not in known] == []
    assert lacking, "the comparison compares nothing"

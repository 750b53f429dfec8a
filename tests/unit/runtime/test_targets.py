"""Targets of mounts that lead into /proc are found, whatever way they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.model.errors import InvalidArgument
from bastide.model.process import Mount
from bastide.runtime import targets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("proc", "data", "a/b"):
        (tmp_path / folder).mkdir(parents=True)
    for name, link in (("up", "../../proc"), ("direct", "/proc"), ("a/again", "../up"), ("round", "round")):
        (tmp_path / name).symlink_to(link)
    return tmp_path


def mount(target: str, source: str = "/srv") -> Mount:
    return Mount(kind="bind", target=target, source=Path(source))


@pytest.mark.parametrize(
    "target",
    ["/proc", "/proc/", "//proc", "/proc/self/attr", "/data/../proc/sys", "/up", "/up/sys", "/direct/1", "/a/again/x/y",
     "/a/b/../again"],
)  # fmt: skip
def test_refused(root: Path, target: str) -> None:
    with pytest.raises(InvalidArgument, match="inside /proc"):
        targets.check(root, [mount("/data"), mount(target)])
    with pytest.raises(InvalidArgument, match="inside /proc"):
        targets.check(root, [Mount(kind="tmpfs", target=target)])


@pytest.mark.parametrize("target", ["/", "/data", "/new/proc", "/procs", "/proc/uptime", "/direct/meminfo", "/round/x"])
def test_fine(root: Path, target: str) -> None:
    targets.check(root, [mount(target)])


def test_the_hosts_own(root: Path) -> None:
    targets.check(root, [mount("/proc", "/proc")])

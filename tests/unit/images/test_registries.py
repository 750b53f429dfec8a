"""registries.conf: mirrors, rewriting, blocking, and names that stay what they are (ATTACKS 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.images.reference import parse
from bastide.images.registries import Registries, is_loopback
from bastide.model.errors import InvalidArgument, PermissionDenied

CONF = """
unqualified-search-registries = ["evil.example"]
[aliases]
"debian" = "evil.example/debian"
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"
[[registry]]
location = "bad.example"
blocked = true
[[registry]]
prefix = "*.corp.example"
insecure = true
[[registry]]
prefix = "old.example/team"
location = "new.example/moved"
"""


@pytest.fixture
def registries(tmp_path: Path) -> Registries:
    (tmp_path / "registries.conf").write_text(CONF)
    (tmp_path / "registries.conf.d").mkdir()
    (tmp_path / "registries.conf.d" / "1.conf").write_text('[[registry]]\nlocation="more.example"\ninsecure=true\n')
    return Registries(tmp_path)


def places(registries: Registries, name: str) -> list[tuple[str, str, bool]]:
    return [(e.address, e.repository, e.insecure) for e in registries.endpoints(parse(name).tagged())]


def test_mirrors_first_and_short_names_stay_docker_hubs(registries: Registries) -> None:
    assert places(registries, "debian") == [
        ("mirror.example:5000", "hub/library/debian", True),
        ("registry-1.docker.io", "library/debian", False),
    ]
    digest = "debian@sha256:" + "ab" * 32
    assert [place[0] for place in places(registries, digest)] == [
        "mirror.example:5000",
        "digests.example",
        "registry-1.docker.io",
    ]


def test_mirrors_are_not_pushed_to(registries: Registries) -> None:
    found = registries.endpoints(parse("debian").tagged(), push=True)
    assert [place.address for place in found] == ["registry-1.docker.io"]


def test_blocked_rewritten_wildcard(registries: Registries) -> None:
    with pytest.raises(PermissionDenied, match="blocked"):
        places(registries, "bad.example/x")
    assert places(registries, "old.example/team/app") == [("new.example", "moved/app", False)]
    assert places(registries, "old.example/teams/app") == [("old.example", "teams/app", False)]
    assert places(registries, "a.b.corp.example/x") == [("a.b.corp.example", "x", True)]
    assert places(registries, "corp.example/x") == [("corp.example", "x", False)]
    assert places(registries, "more.example/x") == [("more.example", "x", True)]


def test_no_file_at_all(tmp_path: Path) -> None:
    registries = Registries(tmp_path / "absent")
    assert places(registries, "debian") == [("registry-1.docker.io", "library/debian", False)]


@pytest.mark.parametrize("text", ["[[registry]\n", "registry = 3\n", "registry = [1]\n"])
def test_broken_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "registries.conf").write_text(text)
    with pytest.raises(InvalidArgument, match=r"registries\.conf"):
        Registries(tmp_path)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback

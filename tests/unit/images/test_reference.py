"""References: the cases of distribution/reference, and what must never pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bastide.images.reference import parse, parse_repository
from bastide.model.errors import InvalidArgument

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/user/app:1", "docker.io/user/app:1", "user/app:1"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("quay.io/a/b_c.d--e:T.x", "quay.io/a/b_c.d--e:T.x", "quay.io/a/b_c.d--e:T.x"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("Registry/app", "Registry/app", "Registry/app"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
    ],
)
def test_normal_form(text: str, full: str, familiar: str) -> None:
    found = parse(text)
    assert str(found) == full
    assert found.familiar == familiar
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Debian",
        "a b",
        "debian:",
        "debian:-x",
        "debian@sha256:short",
        "debian@sha512:" + "ab" * 64,
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "../a",
        "--name",
        "host_x.y/a/b",
        "debian:" + "x" * 129,
        "a" * 256,
        "debian\n",
        "debian:12\n",
        "deb\u0131an",
        "ab" * 32,
        "quay.io:port/a",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


def test_docker_names_the_capital_letters() -> None:
    with pytest.raises(InvalidArgument, match="must be lowercase"):
        parse("library/Debian")


def test_latest_only_where_nothing_is_said() -> None:
    assert str(parse("debian").tagged()) == "docker.io/library/debian:latest"
    assert parse(f"debian@{DIGEST}").tagged().tag == ""


@pytest.mark.parametrize(
    "name", ["docker.io/evil.example/app", "docker.io/localhost/app", "docker.io/library/" + "a" * 64]
)
def test_no_short_form_that_means_another(name: str) -> None:
    """A name on Docker Hub whose short form is a name on another registry, or an id (ATTACKS 6)."""
    assert parse(name).familiar == name
    assert parse(parse(name).familiar) == parse(name)


def test_repository_takes_no_tag() -> None:
    with pytest.raises(InvalidArgument):
        parse_repository("debian:12")


@given(some.text(max_size=60))
def test_any_text_is_refused_or_stable(text: str) -> None:
    try:
        found = parse(text)
    except InvalidArgument:
        return
    assert parse(str(found)) == found
    assert ".." not in found.path.split("/")

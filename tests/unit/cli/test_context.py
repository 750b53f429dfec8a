"""`.dockerignore` and references."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from tests.pretender import Pretender, reply, stream
from tests.unit.cli.conftest import Bastide

from bastide.cli.grammar import CommandError
from bastide.cli.options import references
from bastide.cli.options.context import Ignore


@pytest.mark.parametrize(
    ("lines", "path", "out"),
    [
        (["*.md"], "a.md", True),
        (["*.md"], "d/a.md", False),
        (["**/*.md"], "d/e/a.md", True),
        (["**/*.md"], "a.md", True),
        (["d"], "d/e/f", True),
        (["d/**"], "d/e", True),
        (["*", "!keep"], "keep", False),
        (["*", "!keep"], "keep/x", False),
        (["*", "!keep"], "other", True),
        (["!a", "a"], "a", True),
        (["# c", "", " a "], "a", True),
        (["/a/"], "a", True),
        (["a?c"], "abc", True),
        (["a[b-d]c"], "acc", True),
        (["a[^b]c"], "abc", False),
        (["d/*/x"], "d/e/x", True),
        (["d/*/x"], "d/x", False),
    ],
)
def test_ignored(lines: list[str], path: str, out: bool) -> None:
    assert Ignore(lines).out(path) is out


def test_the_context_that_is_sent(pretender: Pretender, bastide: Bastide, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "sub").mkdir(parents=True)
    for name in ("Dockerfile", "a.txt", "b.log", "sub/c.log", "sub/keep.log"):
        (folder / name).write_text("FROM scratch\n")
    (folder / ".dockerignore").write_text("**/*.log\n!sub/keep.log\nDockerfile\n")
    pretender.answers["POST /build"] = stream({"stream": "Step 1\n"}, {"aux": {"ID": "sha256:1"}})
    done = bastide("build", "-t", "app", "--build-arg", "A=b", "--iidfile", str(tmp_path / "iid"), str(folder))
    assert (done.code, done.out) == (0, "Step 1\n")
    assert (tmp_path / "iid").read_text() == "sha256:1"
    asked = pretender.last("POST /build")
    with tarfile.open(fileobj=io.BytesIO(asked.body)) as tar:
        assert sorted(tar.getnames()) == [".dockerignore", "Dockerfile", "a.txt", "sub", "sub/keep.log"]
    assert asked.query["t"] == ["app"]
    assert asked.query["dockerfile"] == ["Dockerfile"]
    assert asked.query["buildargs"] == ['{"A":"b"}']
    assert asked.query["rm"] == ["1"]
    assert bastide("build", "-q", str(folder)).out == "sha256:1\n"


def test_no_context(bastide: Bastide, pretender: Pretender, tmp_path: Path) -> None:
    assert "not found" in bastide("build", str(tmp_path / "none")).err
    assert "Dockerfile" in bastide("build", str(tmp_path)).err
    assert pretender.requests == []


@pytest.mark.parametrize(
    ("reference", "name", "tag"),
    [
        ("busybox", "busybox", ""),
        ("busybox:1", "busybox", "1"),
        ("localhost:5000/a", "localhost:5000/a", ""),
        ("localhost:5000/a:b", "localhost:5000/a", "b"),
        ("a@sha256:00", "a", "sha256:00"),
        ("a:1@sha256:00", "a", "sha256:00"),
    ],
)
def test_references(reference: str, name: str, tag: str) -> None:
    assert references.split(reference) == (name, tag)


@pytest.mark.parametrize("reference", ["", "a:", "A", "a b", "/a", "a//b", "-", "a/"])
def test_bad_references(reference: str) -> None:
    if reference == "-":
        assert references.split(reference) == ("-", "")
        return
    with pytest.raises(CommandError, match="invalid reference format"):
        references.split(reference)


@pytest.mark.parametrize(
    ("name", "tag", "full"),
    [
        ("busybox", "latest", "docker.io/library/busybox:latest"),
        ("team/app", "1", "docker.io/team/app:1"),
        ("r.example.com/app", "sha256:00", "r.example.com/app@sha256:00"),
    ],
)
def test_full_names(name: str, tag: str, full: str) -> None:
    assert references.full(name, tag) == full


def test_secrets_are_handed_over_apart(
    pretender: Pretender, bastide: Bastide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "token").write_text("abc")
    monkeypatch.setenv("PASSWORD", "xyz")
    pretender.answers |= {
        "POST /build/secrets": reply({"Id": "s1"}, 201),
        "POST /build": stream({"errorDetail": {"message": "the step failed", "code": 7}}),
    }
    words = ("--secret", f"id=a,src={tmp_path}/token", "--secret", "id=b,env=PASSWORD", "--ssh", "default=/run/agent")
    done = bastide("build", *words, str(tmp_path))
    assert (done.code, done.err) == (7, "the step failed\n")
    assert pretender.last("POST /build/secrets").json == {"a": "YWJj", "b": "eHl6"}
    asked = pretender.last("POST /build").query
    assert (asked["secrets"], asked["ssh"]) == (["s1"], ["default=/run/agent"])
    assert "env=NAME" in bastide("build", "--secret", "foo", str(tmp_path)).err
    assert "the environment has no NONE" in bastide("build", "--secret", "id=a,env=NONE", str(tmp_path)).err

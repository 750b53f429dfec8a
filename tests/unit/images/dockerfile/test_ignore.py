"""`.dockerignore`: the table of Docker's own matcher (github.com/moby/patternmatcher), and the order of rules."""

from __future__ import annotations

import pytest

from bastide.images.dockerfile.ignore import Ignore
from bastide.model.errors import InvalidArgument

MATCHES = [
    ("**", "file", True),
    ("**", "file/", True),
    ("**/", "file", True),
    ("**", "dir/file", True),
    ("**/", "dir/file", True),
    ("**/**", "dir/file", True),
    ("dir/**", "dir/file", True),
    ("dir/**", "dir/dir2/file", True),
    ("**/dir", "dir", True),
    ("**/dir", "dir/file", True),
    ("**/dir2/*", "dir/dir2/file", True),
    ("**/dir2/**", "dir/dir2/dir3/file", True),
    ("**file", "file", True),
    ("**file", "dir/file", True),
    ("**/file", "dir/dir/file", True),
    ("**file*", "dir/file.txt", True),
    ("a**b", "a/x/b", True),
    ("*", "file", True),
    ("*", "dir/file", True),
    ("*.go", "x.go", True),
    ("*.go", "dir/x.go", False),
    ("a*", "b", False),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("[\\]a]", "]", True),
    ("[x-]", "x", True),
    ("[x-]", "-", True),
    ("[--a]", "A", True),
    ("[[&&|~]", "&", True),
    ("[^/]x", "/x", False),
    ("/file", "file", True),
    ("./dir/../file", "file", True),
    ("dir/", "dir/file", True),
    (" spaced ", "spaced", True),
    ("a.b", "axb", False),
    ("abc.def", "abcxdef", False),
    ("a+b(c)", "a+b(c)", True),
    ("dir", "directory", False),
    (".*", ".foo", True),
    (".*", "foo", False),
    ("**/.foo", "a/b/.foo", True),
    ("*/*", "a/b", True),
    ("*/*", "a", False),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), MATCHES)
def test_pattern(pattern: str, path: str, expected: bool) -> None:
    assert Ignore(pattern).excludes(path.rstrip("/")) is expected


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "other.md", True),
        ("!README.md\n*.md", "README.md", True),
        ("dir\n!dir/keep", "dir/keep", False),
        ("dir\n!dir/keep", "dir/other", True),
        ("dir\n!dir/keep\ndir/keep/not", "dir/keep/not", True),
        ("**\n!a/b", "a/b/c", False),
        ("# comment\n\nx", "x", True),
        ("\ufeffx", "x", True),
        ("#x", "#x", False),
        ("\\#x", "#x", True),
        ("! spaced", "spaced", False),
    ],
)
def test_order(rules: str, path: str, expected: bool) -> None:
    assert Ignore(rules).excludes(path) is expected


@pytest.mark.parametrize("pattern", ["a[", "[", "[]a]x[", "a\\", "!", "[z-a]"])
def test_malformed(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        Ignore(pattern)


def test_exceptions_are_known() -> None:
    assert Ignore("a\n!b").exceptions
    assert not Ignore("a\nb").exceptions


def test_stars_take_no_time_without_end() -> None:
    assert not Ignore("*a" * 20 + "b").excludes("a" * 200)

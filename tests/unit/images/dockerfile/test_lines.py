"""How a Dockerfile is cut: directives, flags, here-documents, limits."""

from __future__ import annotations

import pytest

from bastide.images.dockerfile.lines import SIZE_LIMIT, ParseError, cut, split_flags
from bastide.model.errors import InvalidArgument


def one(text: str) -> tuple[str, tuple[str, ...], str]:
    (node,) = cut(text.encode()).nodes
    return node.command, node.flags, node.rest


@pytest.mark.parametrize(
    ("line", "flags", "rest"),
    [
        ("--a=1 --b=2 rest of it", ("--a=1", "--b=2"), "rest of it"),
        ('--a="with space" x', ("--a=with space",), "x"),
        ("--a='q' x", ("--a=q",), "x"),
        ("--a=esc\\ aped x", ("--a=esc aped",), "x"),
        ("-- --no-flag", (), "--no-flag"),
        ("-x --y", (), "-x --y"),
        ("--link", ("--link",), ""),
        ("", (), ""),
    ],
)
def test_flags(line: str, flags: tuple[str, ...], rest: str) -> None:
    assert split_flags(line, 1) == (flags, rest)


def test_directives_end_with_the_first_other_line() -> None:
    source = cut(b"# syntax = docker/dockerfile:1\n#escape=`\n# other\n# escape=\\\nFROM x\n")
    assert source.directives == {"syntax": "docker/dockerfile:1", "escape": "`"}
    assert cut(b"\n# escape=`\nFROM x\n").escape == "\\"
    assert cut(b"# unknown=1\n# escape=`\nFROM x\n").escape == "`"


def test_a_directive_stands_once() -> None:
    with pytest.raises(ParseError, match="line 2: only one escape"):
        cut(b"# escape=`\n# escape=`\nFROM x\n")


def test_a_doubled_escape_continues_nothing() -> None:
    assert [node.rest for node in cut(b"RUN a \\\\\nRUN b\n").nodes] == ["a \\\\", "b"]


def test_lines_are_numbered_from_one() -> None:
    nodes = cut(b"# c\nFROM x\n\nRUN a \\\n  b\nRUN <<E\nz\nE\nCMD q\n").nodes
    assert [(node.first, node.last) for node in nodes] == [(2, 2), (4, 5), (6, 8), (9, 9)]


@pytest.mark.parametrize(
    "line",
    ["RUN echo $((1<<2))", "RUN echo 'a <<EOF b'", 'RUN echo "<<EOF"', "CMD cat <<EOF", "RUN echo <<", "RUN a <<<word"],
)
def test_no_document_begins(line: str) -> None:
    assert one(line)[2] == line.split(" ", 1)[1]


def test_documents() -> None:
    (node,) = cut(b"RUN a <<X 3<<-'Y' \"<<Z\"\none $A\nX\n\ttwo\n\tY\n").nodes
    first, second = node.heredocs
    assert (first.name, first.content, first.expand, first.chomp) == ("X", "one $A\n", True, False)
    assert (second.name, second.content, second.expand, second.chomp) == ("Y", "two\n", False, True)


def test_binary_and_oversized_files_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="UTF-8"):
        cut(b"FROM \xff\xfe\n")
    with pytest.raises(InvalidArgument, match="NUL"):
        cut(b"FROM x\0y\n")
    with pytest.raises(InvalidArgument, match="more than"):
        cut(b"#" * (SIZE_LIMIT + 1))

"""Variables, quotes and escapes in words; the cases follow the table of the reference implementation's rules."""

from __future__ import annotations

import pytest

from bastide.images.dockerfile.words import RESULT_LIMIT, Expander
from bastide.model.errors import InvalidArgument

VARIABLES = {"A": "alpha", "E": "", "P": "/usr/local/lib/x.tar.gz", "W": "two words", "_u1": "under"}

WORDS = [
    ("plain", "plain"),
    ("$A", "alpha"),
    ("${A}", "alpha"),
    ("pre$A.post", "prealpha.post"),
    ("$AB", ""),
    ("${A}B", "alphaB"),
    ("$_u1", "under"),
    ("$1x", "x"),
    ("$", "$"),
    ("a$", "a$"),
    ("$.", "$."),
    ("'$A'", "$A"),
    ('"$A"', "alpha"),
    ('"a\\"b"', 'a"b'),
    ('"a\\b"', "a\\b"),
    ('"\\$A"', "$A"),
    ("\\$A", "$A"),
    ("a\\ b", "a b"),
    ("\\\\", "\\"),
    ("trailing\\", "trailing"),
    ("'it''s'", "its"),
    ('a"b"c', "abc"),
    ('""', ""),
    ("${A:-x}", "alpha"),
    ("${E:-x}", "x"),
    ("${E-x}", ""),
    ("${U-x}", "x"),
    ("${U:-$A}", "alpha"),
    ("${U:-${U:-deep}}", "deep"),
    ("${U:-'q $A'}", "q $A"),
    ("${A:+x}", "x"),
    ("${E:+x}", ""),
    ("${E+x}", "x"),
    ("${U+x}", ""),
    ("${A:?must}", "alpha"),
    ("${P#*/}", "usr/local/lib/x.tar.gz"),
    ("${P##*/}", "x.tar.gz"),
    ("${P%.*}", "/usr/local/lib/x.tar"),
    ("${P%%.*}", "/usr/local/lib/x"),
    ("${P#nothing}", "/usr/local/lib/x.tar.gz"),
    ("${P/lib/LIB}", "/usr/local/LIB/x.tar.gz"),
    ("${P//l/L}", "/usr/LocaL/Lib/x.tar.gz"),
    ("${A/[aeiou]/_}", "_lpha"),
    ("${A//[aeiou]/_}", "_lph_"),
]


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_word(text: str, expected: str) -> None:
    assert Expander(VARIABLES).word(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "'open",
        '"open',
        "${A",
        "${",
        "${}",
        "${:x}",
        "${A:!x}",
        "${A!}",
        "${U:?gone}",
        "${U?}",
        "${A/x",
        "${A:",
        "${-A}x",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Expander(VARIABLES).word(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("$W", ["two", "words"]),
        ('"$W"', ["two words"]),
        ("'a b' c", ["a b", "c"]),
        ("x$W.y", ["xtwo", "words.y"]),
        ("a\\ b", ["a b"]),
        ("$E", []),
        ('"" x', ["", "x"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert Expander(VARIABLES).words(text) == expected


def test_backtick_as_the_escape_sign() -> None:
    expander = Expander(VARIABLES, "`")
    assert expander.word("C:\\$A") == "C:\\alpha"
    assert expander.word("`$A") == "$A"


def test_text_of_a_document_keeps_its_quotes() -> None:
    text = "'$A' \"$A\" \\$A \\\\ \\n ${U:-x}\n"
    assert Expander(VARIABLES).text(text) == "'alpha' \"alpha\" $A \\ \\n x\n"


def test_what_was_used_is_known() -> None:
    expander = Expander(VARIABLES)
    expander.word("$A ${U:-x}")
    assert expander.used == {"A", "U"}


def test_values_do_not_multiply_without_end() -> None:
    with pytest.raises(InvalidArgument, match="expands to more"):
        Expander({"X": "x" * (RESULT_LIMIT // 4)}).word("$X$X$X$X$X")


def test_nesting_has_an_end() -> None:
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        Expander({}).word("${A:-" * 1000 + "}" * 1000)


def test_patterns_take_no_time_without_end() -> None:
    value = "a" * 4000
    for operator in ("#", "##", "%", "%%"):
        assert Expander({"V": value}).word("${V" + operator + "*a" * 20 + "b*a" * 20 + "}") == value
    with pytest.raises(InvalidArgument, match="too many for a pattern"):
        Expander({"V": "a" * 100_000}).word("${V#a}")

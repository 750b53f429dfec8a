"""Docker's grammar: what is a flag, what is an argument, and pflag's messages."""

from __future__ import annotations

import pytest

from bastide.cli.grammar import DURATION, FILTER, INT, LIST, ON, STRING, SWITCH, Command, Options, UsageError, parse

FLAGS = (
    ("rm", "", SWITCH, ""),
    ("tty", "t", SWITCH, ""),
    ("interactive", "i", SWITCH, ""),
    ("env", "e", LIST, ""),
    ("name", "", STRING, ""),
    ("last", "n", INT, ""),
    ("sig-proxy", "", ON, ""),
    ("filter", "f", FILTER, ""),
    ("wait", "", DURATION, ""),
    ("hostname", "h", STRING, ""),
)
CARRIER = Command(lambda _client, _options: 0, flags=FLAGS, carries=True)
PLAIN = Command(lambda _client, _options: 0, flags=FLAGS)


def read(*words: str, command: Command = CARRIER) -> Options:
    return parse("run", command, words)


def test_flags_end_at_the_first_argument_of_a_carrier() -> None:
    options = read("--rm", "-it", "image", "sh", "-c", "--rm", "-x")
    assert options.arguments == ["image", "sh", "-c", "--rm", "-x"]
    assert options.values == {"rm": True, "interactive": True, "tty": True}


def test_flags_may_follow_arguments_elsewhere() -> None:
    options = read("a", "--rm", "b", "--", "--c", command=PLAIN)
    assert options.arguments == ["a", "b", "--c"]
    assert options.on("rm")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--name", "x"], "name", "x"),
        (["--name=x=y"], "name", "x=y"),
        (["--name="], "name", ""),
        (["-e", "A=b", "-eC=d", "--env=E"], "env", ["A=b", "C=d", "E"]),
        (["-e=A"], "env", ["A"]),
        (["-tn", "3"], "last", 3),
        (["-tn3"], "last", 3),
        (["-n", "0x10"], "last", 16),
        (["--rm=false"], "rm", False),
        (["--rm=T"], "rm", True),
        (["-t=0"], "tty", False),
        (["--sig-proxy=false"], "sig-proxy", False),
        (["--wait", "1m30s"], "wait", 90 * 10**9),
        (["-h", "box"], "hostname", "box"),
        (["-f", "a=b", "-f", "a=c"], "filter", ["a=b", "a=c"]),
    ],
)
def test_values(words: list[str], name: str, value: object) -> None:
    assert read(*words, "image").values[name] == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-tz"], "unknown shorthand flag: 'z' in -tz"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["-te"], "flag needs an argument: 'e' in -e"),
        (["--=x"], "bad flag syntax: --=x"),
        (
            ["--rm=maybe"],
            'invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (["-n", "x"], 'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["-f", "x"], 'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)'),
    ],
)
def test_messages(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(*words)
    assert str(raised.value) == message
    assert raised.value.code == 125


@pytest.mark.parametrize(
    ("low", "high", "count", "message"),
    [
        (1, None, 0, "requires at least 1 argument"),
        (2, None, 1, "requires at least 2 arguments"),
        (2, 2, 3, "requires 2 arguments"),
        (0, 0, 1, "accepts no arguments"),
        (0, 1, 2, "requires at most 1 argument"),
    ],
)
def test_counts(low: int, high: int | None, count: int, message: str) -> None:
    command = Command(lambda _client, _options: 0, minimum=low, maximum=high)
    with pytest.raises(UsageError, match=message) as raised:
        parse("x", command, ["a"] * count)
    assert raised.value.code == 1


def test_help_asks_for_no_arguments() -> None:
    assert "help" in parse("x", Command(lambda _client, _options: 0, minimum=3), ["--help"])

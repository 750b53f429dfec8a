"""Log options: which are taken, what they mean for the files of a log, and what they put before its lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bastide.engine import log_options
from bastide.engine.log_options import Limits
from bastide.model.container import Config, Container, HostConfig, Isolation, LogConfig
from bastide.model.errors import InvalidArgument, Unsupported


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max-size": "ten"}),
        ("json-file", {"max-size": "."}),
        ("json-file", {"max-file": "0"}),
        ("json-file", {"max-file": "x"}),
        ("json-file", {"max-file": "²"}),
        ("json-file", {"compress": "maybe"}),
        ("json-file", {"compress": "true"}),
        ("json-file", {"compress": "true", "max-size": "1m"}),
        ("json-file", {"compress": "true", "max-file": "3"}),
        ("json-file", {"labels-regex": "("}),
        ("json-file", {"mode": "dreaming"}),
        ("json-file", {"max-buffer-size": "1m"}),
        ("local", {"max-file": "1"}),
        ("local", {"compress": ""}),
        ("local", {"labels": "a"}),
        ("none", {"max-size": "1m"}),
        ("local", {"colour": "red"}),
        ("colour", {}),
    ],
    ids=str,
)
def test_bad(driver: str, options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        log_options.checked(LogConfig(type=driver, config=options))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mode": "non-blocking"}, "mode=non-blocking"),
        ({"mode": "non-blocking", "max-buffer-size": "4m"}, "mode=non-blocking"),
        ({"tag": "{{.Name | upper}}"}, ".Name | upper"),
        ({"labels-regex": "(a|b)*c"}, "pattern"),
        ({"env-regex": "a*a*a*b"}, "pattern"),
        ({"max-file": "1000"}, "max-file"),
    ],
    ids=str,
)
def test_refused_by_name(options: dict[str, str], word: str) -> None:
    with pytest.raises(Unsupported, match=word.replace(".", r"\.").replace("|", r"\|")):
        log_options.checked(LogConfig(type="json-file", config=options))


def test_no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(log_options, "JOURNAL", tmp_path / "absent")
    with pytest.raises(Unsupported, match="no journal listens"):
        log_options.checked(LogConfig(type="journald"))


@pytest.mark.parametrize(
    ("driver", "options", "found"),
    [
        ("json-file", {}, Limits(7, 2, False)),
        ("json-file", {"mode": "blocking"}, Limits(7, 2, False)),
        ("json-file", {"max-size": "1m", "max-file": "3", "compress": "t"}, Limits(1 << 20, 3, True)),
        ("json-file", {"max-size": "-1"}, Limits(-1, 2, False)),
        ("local", {}, Limits(20 << 20, 5, True)),
        ("local", {"compress": "false", "max-file": "1"}, Limits(20 << 20, 1, False)),
    ],
    ids=str,
)
def test_limits(driver: str, options: dict[str, str], found: Limits) -> None:
    assert log_options.limits(log_options.checked(LogConfig(type=driver, config=options)), default=7) == found


def container(config: dict[str, str], **fields: Any) -> Container:
    return Container(
        id="0123456789abcdef" * 4,
        name="web",
        created="",
        config=Config(**fields),
        host_config=HostConfig(log_config=log_options.checked(LogConfig(type="json-file", config=config))),
        image_id="sha256:" + "ab" * 32,
        image_ref="busybox:latest",
        layers=[],
        isolation=Isolation.CONTAINER,
        runtime="crun",
        snapshotter="overlay",
        platform="linux",
        path="sh",
        args=["-c", "true"],
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b" "),
        ({"labels": "b,none,a"}, b"a=1,b=two+words%2C%26 "),
        ({"labels-regex": "^com\\..*name$"}, b"com.example.name=n "),
        ({"env": "A", "labels": "a"}, b"A=x%3Dy,a=1 "),
        ({"env-regex": "^B"}, b"BA= "),
        ({"tag": "{{.Name}}/{{ .ID }}"}, b"tag=web%2F0123456789ab "),
        ({"tag": "{{.ImageName}} {{.ImageID}} {{.Command}} {{.DaemonName}}"},
         b"tag=busybox%3Alatest+abababababab+sh+-c+true+bastide "),
    ],
    ids=str,
)  # fmt: skip
def test_details(options: dict[str, str], expected: bytes) -> None:
    made = container(
        options,
        labels={"a": "1", "b": "two words,&", "com.example.name": "n"},
        env=["A=x=y", "BA=", "C=c"],
    )
    assert log_options.details(made) == expected

"""What a HostConfig may say, and what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.engine import host_config
from bastide.model.container import HostConfig, LogConfig
from bastide.model.errors import InvalidArgument, Unsupported


@pytest.mark.parametrize(
    ("text", "found"), [("0", {0}), ("0-2", {0, 1, 2}), ("1,3", {1, 3}), ("0-1,7\n", {0, 1, 7}), ("5-5", {5})]
)
def test_sets_of_processors(text: str, found: set[int]) -> None:
    assert host_config.members(text) == found


@pytest.mark.parametrize("text", ["", ",", "2-1", "a", "0-", "-1", "0,,1", "0-99999999", "0;1"])
def test_no_sets_of_processors(text: str) -> None:
    with pytest.raises(InvalidArgument):
        host_config.members(text)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max-size": "ten"}),
        ("json-file", {"max-file": "0"}),
        ("json-file", {"max-file": "x"}),
        ("none", {"max-size": "1m"}),
        ("local", {"colour": "red"}),
        ("colour", {}),
    ],
    ids=str,
)
def test_bad_log_options(driver: str, options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        host_config.checked(HostConfig(log_config=LogConfig(type=driver, config=options)))


@pytest.mark.parametrize("option", ["compress", "labels", "env", "tag"])
def test_log_options_that_are_not_offered(option: str) -> None:
    with pytest.raises(Unsupported, match=option):
        host_config.checked(HostConfig(log_config=LogConfig(type="json-file", config={option: "x"})))


def test_no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_config, "JOURNAL", tmp_path / "absent")
    with pytest.raises(Unsupported, match="no journal listens"):
        host_config.checked(HostConfig(log_config=LogConfig(type="journald")))

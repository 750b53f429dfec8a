"""What a HostConfig may say, and what is refused before anything is made."""

from __future__ import annotations

import pytest

from bastide.engine import host_config
from bastide.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "found"), [("0", {0}), ("0-2", {0, 1, 2}), ("1,3", {1, 3}), ("0-1,7\n", {0, 1, 7}), ("5-5", {5})]
)
def test_sets_of_processors(text: str, found: set[int]) -> None:
    assert host_config.members(text) == found


@pytest.mark.parametrize("text", ["", ",", "2-1", "a", "0-", "-1", "0,,1", "0-99999999", "0;1"])
def test_no_sets_of_processors(text: str) -> None:
    with pytest.raises(InvalidArgument):
        host_config.members(text)

"""Processes are told apart by program and command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench.memory import Match, processes, pss


@pytest.mark.parametrize(
    ("match", "arguments", "expected"),
    [
        (Match("dockerd"), ["/usr/sbin/dockerd", "--host=x"], True),
        (Match("containerd"), ["containerd-shim-runc-v2"], True),
        (Match("bastide.daemon"), ["/usr/bin/python3", "-m", "bastide.daemon"], True),
        (Match("conmon", "/mine"), ["/usr/bin/conmon", "-b", "/mine/x"], True),
        (Match("conmon", "/mine"), ["/usr/bin/conmon", "-b", "/other/x"], False),
        (Match("dockerd"), ["sleep", "infinity"], False),
    ],
)
def test_match(match: Match, arguments: list[str], expected: bool) -> None:
    assert match(arguments) is expected


def test_own_process_is_found_and_has_memory() -> None:
    me = Match(Path(Path("/proc/self/cmdline").read_text().split("\0")[0]).name)
    assert os.getpid() in {int(folder.name) for folder in processes([me])}
    assert pss([me]) > 1

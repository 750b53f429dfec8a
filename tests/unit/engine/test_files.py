"""What counts as a change, and how modes travel."""

from __future__ import annotations

import stat

import pytest

from bastide.engine.files import without_mount_targets
from bastide.model.filemode import go_mode


def test_mount_targets_are_no_changes() -> None:
    found = [(0, "/etc"), (1, "/etc/hosts"), (1, "/etc/resolv.conf"), (0, "/tmp"), (1, "/tmp/x")]
    assert without_mount_targets(found) == [(0, "/tmp"), (1, "/tmp/x")]


def test_a_folder_that_the_user_changed_too_stays() -> None:
    found = [(0, "/etc"), (1, "/etc/hosts"), (1, "/etc/mine"), (0, "/etc/hostname")]
    assert without_mount_targets(found) == [(0, "/etc"), (1, "/etc/mine"), (0, "/etc/hostname")]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFREG | 0o4755, 1 << 23 | 0o755),
    ],
)
def test_modes_are_gos(mode: int, expected: int) -> None:
    assert go_mode(mode) == expected

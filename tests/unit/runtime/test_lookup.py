from __future__ import annotations

from pathlib import Path

import pytest

from bastide.host.paths import root_of
from bastide.model.errors import BastideError, NotFound, PermissionDenied
from bastide.model.process import Process
from bastide.runtime.lookup import check


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "sbin").mkdir()
    (tmp_path / "bin" / "tool").touch(mode=0o755)
    (tmp_path / "bin" / "plain").touch(mode=0o644)
    (tmp_path / "sbin" / "plain").touch(mode=0o644)
    (tmp_path / "bin" / "link").symlink_to("/bin/tool")
    (tmp_path / "bin" / "out").symlink_to("/proc/self/exe")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("tool", None),
        ("link", None),
        ("/bin/tool", None),
        ("bin/tool", None),
        ("./tool", NotFound),
        ("absent", NotFound),
        ("out", None),
        ("/proc/self/exe", None),
        ("../proc/self/exe", None),
        ("/absent/x", NotFound),
        ("/bin/tool/x", NotFound),
        ("plain", PermissionDenied),
        ("/bin", PermissionDenied),
    ],
)
def test_commands(tree: Path, command: str, error: type[BastideError] | None) -> None:
    process = Process(args=(command,), env=("PATH=/sbin:/bin",))
    with root_of(tree) as root:
        found = check(root, process)
    assert (None if found is None else type(found)) is error


def test_without_a_path_the_runtime_decides(tree: Path) -> None:
    with root_of(tree) as root:
        assert check(root, Process(args=("absent",))) is None

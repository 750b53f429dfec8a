"""Fixtures that start real parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.living import Daemon, busybox_archive, serving

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files below tests/golden")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with a file below tests/golden, or rewrites the file with `--update-golden`."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs: look at it, then rewrite it with --update-golden"

    return check


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """A running daemon with the image `busybox` in it, shared by a whole run."""
    assert os.geteuid() == 0, "integration tests start a real daemon: run them as root"
    with serving("it", "10.99.0.0/16", "10.101.0.0/16") as made:
        yield made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A docker-archive of a small image."""
    return busybox_archive(tmp_path / "busybox.tar")

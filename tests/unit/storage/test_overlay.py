"""What needs no mount: names, and what a comparison of two trees says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument, NotFound
from bastide.storage.overlay import Overlay, _changes


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return Overlay(Settings(data_root=tmp_path / "data", run_root=tmp_path / "run"))


@pytest.mark.parametrize(
    "diff_id",
    ["", "sha256:", "sha256:" + "a" * 63, "sha256:" + "A" * 64, "sha256:../" + "a" * 61, "sha512:" + "a" * 64],
)
def test_diff_ids(overlay: Overlay, diff_id: str) -> None:
    with pytest.raises(InvalidArgument, match="diff id"):
        overlay.has(diff_id)


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "/x", "a/b", "a b", "-x", "x\n"])
async def test_keys(overlay: Overlay, key: str) -> None:
    with pytest.raises(InvalidArgument, match="snapshot name"):
        await overlay.mount(key)
    with pytest.raises(InvalidArgument, match="snapshot name"):
        overlay.upper(key)


async def test_unknown(overlay: Overlay) -> None:
    assert not overlay.has("sha256:" + "a" * 64)
    with pytest.raises(NotFound):
        await overlay.usage("unknown")


def tree(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_comparison(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", {"same/a": "1", "touched/b": "1", "file": "1", "kind": "1"})
    upper = tree(tmp_path / "upper", {"touched/b": "2", "new/c/d": "1", "file": "1", "kind/inside": "1"})
    for name in ("touched", "file"):
        times = (lower / name).stat()
        os.utime(upper / name, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _changes(upper, lower) == [
        (0, "/file"),
        (0, "/kind"),
        (1, "/kind/inside"),
        (1, "/new"),
        (1, "/new/c"),
        (1, "/new/c/d"),
        (0, "/touched"),
        (0, "/touched/b"),
    ]


def test_a_directory_that_was_only_copied_up(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", {"folder/a": "1"})
    upper = tree(tmp_path / "upper", {})
    (upper / "folder").mkdir()
    times = (lower / "folder").stat()
    os.utime(upper / "folder", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _changes(upper, lower) == []


def test_links_out_of_the_tree_are_only_links(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", {})
    (lower / "etc").symlink_to("/etc")
    upper = tree(tmp_path / "upper", {"etc/passwd": "x"})
    (upper / "more").symlink_to("/etc")
    assert _changes(upper, lower) == [(0, "/etc"), (1, "/etc/passwd"), (1, "/more")]

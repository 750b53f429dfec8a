"""Archives of images that were damaged on purpose."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from bastide.images.layout import Archive, read
from bastide.model.errors import BastideError, InvalidArgument
from bastide.model.image import Platform

CONFIG = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}
ITEM = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l/layer.tar"]}]


def archive(**members: bytes | str) -> bytes:
    """A tar of members; text is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


WHOLE = {
    "c.json": json.dumps(CONFIG).encode(),
    "manifest.json": json.dumps(ITEM).encode(),
    "real/layer.tar": b"layer",
    "l/layer.tar": "../real/layer.tar",
}


def found(path: Path, data: bytes) -> list[list[str]]:
    """Names of the images in an archive, whose layers are read too."""
    path.write_bytes(data)
    opened = Archive(path)
    try:
        images = read(opened, Platform())
        for image in images:
            for layer in image.layers:
                b"".join(opened.chunks(layer))
        return [image.names for image in images]
    finally:
        opened.close()


def test_links_inside_the_archive(tmp_path: Path) -> None:
    assert found(tmp_path / "a.tar", archive(**WHOLE)) == [["a:1"]]


@pytest.mark.parametrize(
    "changed",
    [
        {"l/layer.tar": "/etc/passwd"},
        {"l/layer.tar": "../../etc/passwd"},
        {"l/layer.tar": "layer.tar"},
        {"manifest.json": b"\xff[]"},
        {"manifest.json": json.dumps(ITEM * 1001).encode()},
        {"manifest.json": json.dumps([ITEM[0] | {"Layers": []}]).encode()},
        {"c.json": b"{}"},
        {"index.json": b'{"schemaVersion": 2, "manifests": []}', "oci-layout": b"{}", "manifest.json": b""},
    ],
)
def test_archives_that_lie(tmp_path: Path, changed: dict[str, bytes | str]) -> None:
    data = archive(**(WHOLE | changed))
    if "index.json" in changed:
        assert found(tmp_path / "a.tar", data) == []
        return
    with pytest.raises(InvalidArgument):
        found(tmp_path / "a.tar", data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.data())
def test_damage_raises_our_errors_only(tmp_path: Path, data: some.DataObject) -> None:
    raw = bytearray(archive(**WHOLE))
    for _ in range(data.draw(some.integers(1, 5))):
        raw[data.draw(some.integers(0, len(raw) - 1))] = data.draw(some.integers(0, 255))
    with contextlib.suppress(BastideError):
        found(tmp_path / "a.tar", bytes(raw[: data.draw(some.integers(0, len(raw)))]))

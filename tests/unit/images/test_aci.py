"""App Container Images: what is taken over, and what is refused by name."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from bastide.images import aci
from bastide.images.tar import Kind, Reader
from bastide.model.errors import InvalidArgument, Unsupported

MANIFEST: dict[str, Any] = {
    "acKind": "ImageManifest",
    "acVersion": "0.8.11",
    "name": "example.com/app",
    "labels": [{"name": "version", "value": "1.2"}, {"name": "arch", "value": "armv7l"}],
    "app": {
        "exec": ["/bin/app", "--serve"],
        "user": "100",
        "group": "300",
        "environment": [{"name": "A", "value": "b=c"}],
        "workingDirectory": "/srv",
        "ports": [{"name": "http", "port": 80, "protocol": "tcp"}],
        "mountPoints": [{"name": "data", "path": "/data"}],
        "isolators": [{"name": "resource/memory", "value": {"limit": "1G"}}],
    },
    "annotations": [{"name": "authors", "value": "A. Uthor"}, {"name": "homepage", "value": "x"}],
}


def parsed(**changes: Any) -> aci.Manifest:
    return aci.parse(json.dumps(MANIFEST | changes).encode())


def test_configuration() -> None:
    manifest = parsed()
    assert manifest.reference == "example.com/app:1.2"
    assert aci.configuration(manifest) == {
        "architecture": "arm",
        "variant": "v7",
        "os": "linux",
        "author": "A. Uthor",
        "config": {
            "Entrypoint": ["/bin/app", "--serve"],
            "User": "100:300",
            "Env": ["A=b=c"],
            "WorkingDir": "/srv",
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "Labels": {"homepage": "x"},
        },
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"acKind": "PodManifest"},
        {"name": 7},
        {"dependencies": [{"imageName": "example.com/base"}]},
        {"pathWhitelist": ["/a"]},
        {"app": {"user": "/etc/passwd", "group": "0", "exec": ["/a"]}},
    ],
)
def test_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((InvalidArgument, Unsupported)):
        parsed(**changes)


def test_other_systems() -> None:
    with pytest.raises(Unsupported, match="freebsd"):
        aci.configuration(parsed(labels=[{"name": "os", "value": "freebsd"}]))


def archive(*members: tuple[str, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            data = fields.pop("data", b"")
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_layer_holds_the_root_alone() -> None:
    data = archive(
        ("manifest", {"data": b"{}"}),
        ("rootfs", {"type": tarfile.DIRTYPE, "mode": 0o750}),
        ("rootfs/a", {"data": b"x" * 600, "uid": 5, "mode": 0o4755}),
        ("rootfs/h", {"type": tarfile.LNKTYPE, "linkname": "rootfs/a"}),
        ("rootfs/l", {"type": tarfile.SYMTYPE, "linkname": "/rootfs/a"}),
        ("rootfsx/b", {"data": b"no"}),
    )
    reader = Reader(aci.layer([data]))
    found = {entry.name: (entry, b"".join(reader.pieces())) for entry in reader}
    assert sorted(found) == [b"./", b"a", b"h", b"l"]
    assert found[b"a"][1] == b"x" * 600
    assert (found[b"a"][0].uid, found[b"a"][0].mode) == (5, 0o4755)
    assert (found[b"h"][0].kind, found[b"h"][0].link) == (Kind.LINK, b"a")
    assert found[b"l"][0].link == b"/rootfs/a"
    assert found[b"./"][0].mode == 0o750


def test_hard_link_out_of_the_root() -> None:
    data = archive(("rootfs/h", {"type": tarfile.LNKTYPE, "linkname": "manifest"}))
    with pytest.raises(InvalidArgument, match="out of its root"):
        list(aci.layer([data]))

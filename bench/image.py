"""The image that everybody pulls and runs: Debian from its own mirror, in layers, on a registry of our own."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Daemon
from bench.measure import run

CACHE = Path("/var/cache/bastide/bench")
PORT = 5977
NAME = f"127.0.0.1:{PORT}/bench:latest"
LEAN = (
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin',
)
LAYERS = ("", "usr/", "usr/lib/x86_64-linux-gnu/")
"""From the lowest layer up; a file is in the last one whose prefix fits."""


@dataclass(frozen=True)
class Image:
    """The OCI layout and its layers; sizes in bytes."""

    layout: Path
    layers: Sequence[Path]
    unpacked: int
    compressed: int


def make() -> Image:
    """The image, made by mmdebstrap the first time and then taken from the cache."""
    layout = CACHE / "layout-with-history"
    if not (layout / "index.json").exists():
        sys.stderr.write("bench image: mmdebstrap, once …\n")
        CACHE.mkdir(parents=True, exist_ok=True)
        tree = CACHE / "tree.tar"
        run(
            ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3", *LEAN, "bookworm", str(tree)],
            dict(os.environ),
        )
        _write_layout(layout, _split(tree))
        tree.unlink()
    layers = [CACHE / f"layer{number}.tar" for number in range(len(LAYERS))]
    blobs = [path.stat().st_size for path in (layout / "blobs" / "sha256").iterdir()]
    return Image(layout, layers, sum(layer.stat().st_size for layer in layers), sum(blobs))


def _split(tree: Path) -> list[Path]:
    """Spread the tree over layers; the folders are all in the lowest one."""
    paths = [CACHE / f"layer{number}.tar" for number in range(len(LAYERS))]
    with ExitStack() as opened:
        layers = [opened.enter_context(tarfile.open(path, "w", format=tarfile.PAX_FORMAT)) for path in paths]
        for member in (whole := opened.enter_context(tarfile.open(tree))):
            # A hard link goes where the file is that it names.
            place = member.linkname if member.islnk() else "" if member.isdir() else member.name
            fitting = [number for number, prefix in enumerate(LAYERS) if place.removeprefix("./").startswith(prefix)]
            layers[fitting[-1]].addfile(member, whole.extractfile(member) if member.isreg() else None)
    return paths


def _write_layout(layout: Path, layers: Sequence[Path]) -> None:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptors, diff_ids = [], []
    for layer in layers:
        raw = layer.read_bytes()
        diff_ids.append("sha256:" + hashlib.sha256(raw).hexdigest())
        packed = gzip.compress(raw, 6, mtime=0)
        descriptors.append(_blob(blobs, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        # podman builds on no image without it.
        "history": [{"created_by": f"layer {layer.name}"} for layer in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(blobs, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    entry = _blob(blobs, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _blob(blobs: Path, data: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def serve(folder: Path, image: Image) -> Daemon:
    """Debian's registry on loopback, with the image in it."""
    folder.mkdir()
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{PORT}}}\n"
    )
    registry = Daemon(["docker-registry", "serve", str(folder / "config.yml")], folder / "log", dict(os.environ))
    _wait_for_port(registry)
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
    run([*copy, f"oci:{image.layout}", f"docker://{NAME}"], dict(os.environ))
    return registry


def _wait_for_port(registry: Daemon) -> None:
    probe = ["bash", "-c", f"until : </dev/tcp/127.0.0.1/{PORT}; do sleep 0.05; done"]
    subprocess.run(probe, stderr=subprocess.DEVNULL, timeout=30, check=True)
    assert registry.process.poll() is None, registry.log.read_text()

"""The corpus of Dockerfiles: its cases, the contexts as archives, and images taken apart for comparison."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "golden" / "dockerfiles"
MOMENT = 1_500_000_000
"""The time of every file of a context, so that a comparison can tell where it was kept."""
_NOT_SENT = ("case.json", "parsed.json", "image.json")
_CONFIG = (
    "User",
    "ExposedPorts",
    "Env",
    "Cmd",
    "Entrypoint",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
)


class Case:
    """One Dockerfile with its context. `fails` is None, or a part of the error that it must end with.

    `classic` and `buildkit` say which of docker's builders (20.10) knows everything in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        path = folder / "case.json"
        self.options: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.fails: str | None = self.options.get("fails")
        self.classic: bool = self.options.get("classic", True)
        self.buildkit: bool = self.options.get("buildkit", True)
        self.left_behind: list[str] = self.options.get("left_behind", [])
        """Mount targets that BuildKit left in the layer before it learned to remove them (moby/buildkit 0.9)."""
        self.dockerfile = (folder / "Dockerfile").read_bytes()

    def golden(self, kind: str) -> Path:
        """Where what is expected of it is written: `parsed` or `image`."""
        return self.folder / f"{kind}.json"

    def flags(self) -> list[str]:
        """Its options for `docker build` and `bastide build`."""
        words = [f"--build-arg={name}={value}" for name, value in self.options.get("args", {}).items()]
        words += [f"--label={name}={value}" for name, value in self.options.get("labels", {}).items()]
        if self.options.get("target"):
            words.append(f"--target={self.options['target']}")
        return words

    def lay_out(self, folder: Path) -> Path:
        """Its context as files of one time; gives the folder."""
        for source in sorted(self.folder.rglob("*")):
            inside = source.relative_to(self.folder)
            target = folder / inside
            if str(inside) in _NOT_SENT:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            elif source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(source.read_bytes())
                target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
            os.utime(path, (MOMENT, MOMENT), follow_symlinks=False)
        return folder


def cases() -> list[Case]:
    """The whole corpus."""
    return [Case(path) for path in sorted(CORPUS.iterdir()) if path.is_dir()]


def taken_apart(archive: bytes, base: bytes) -> dict[str, Any]:
    """What an image (`docker save`) is, and what its tree has that the base image's has not.

    An entry is its kind, mode, owner and content; a time is told only where it is the context's.
    """
    config, tree = _image(archive)
    _, below = _image(base)
    changed = {path: entry for path, entry in tree.items() if below.get(path) != entry}
    # Times of directories that a step wrote into differ from run to run.
    gone = sorted(path for path in below if path not in tree)
    return {
        "config": {name: config["config"][name] for name in _CONFIG if config["config"].get(name)},
        "platform": f"{config['os']}/{config['architecture']}",
        "author": config.get("author", ""),
        "tree": dict(sorted(changed.items())),
        "gone": gone,
    }


def _image(archive: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:

        def read(name: str) -> bytes:
            file = outer.extractfile(name)
            assert file is not None
            return file.read()

        (manifest,) = json.loads(read("manifest.json"))
        config = json.loads(read(manifest["Config"]))
        tree: dict[str, str] = {}
        for layer in manifest["Layers"] or []:
            _apply(read(layer), tree)
    return config, tree


def _apply(layer: bytes, tree: dict[str, str]) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = tar.getmembers()
        for member in members:
            folder, _, name = member.name.rpartition("/")
            if name == ".wh..wh..opq":
                _forget(tree, folder, itself=False)
            elif name.startswith(".wh."):
                _forget(tree, f"{folder}/{name[4:]}".lstrip("/"), itself=True)
        for member in members:
            path = member.name.removeprefix("./").strip("/")
            if path in ("", ".") or path.rpartition("/")[2].startswith(".wh."):
                continue
            if not member.isdir():
                _forget(tree, path, itself=True)
            tree[path] = _described(tar, member)


def _forget(tree: dict[str, str], path: str, *, itself: bool) -> None:
    inside = f"{path}/" if path else ""
    for known in [known for known in tree if known.startswith(inside) or (itself and known == path)]:
        del tree[known]


def _described(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    owner = f"{member.mode & 0o7777:o} {member.uid}:{member.gid}"
    kept = " kept-time" if int(member.mtime) == MOMENT else ""
    if member.isdir():
        return f"dir {owner}{kept}"
    if member.issym():
        return f"link {member.uid}:{member.gid} -> {member.linkname}{kept}"
    if member.isreg() or member.islnk():
        file = tar.extractfile(member)
        assert file is not None
        data = file.read()
        content = repr(data.decode()) if len(data) < 100 and b"\0" not in data else hashlib.sha256(data).hexdigest()
        return f"file {owner} {content}{kept}"
    return f"{member.type!r} {owner}{kept}"


def differences(expected: dict[str, Any], found: dict[str, Any]) -> Iterable[str]:
    """Where two images differ, a line each. Times that bastide keeps and docker does not are no difference."""
    for part in expected:
        ours, theirs = found[part], expected[part]
        if isinstance(theirs, dict):
            for key in sorted({*ours, *theirs}):
                kept = str(ours.get(key)).removesuffix(" kept-time") == theirs.get(key)
                if ours.get(key) != theirs.get(key) and not kept:
                    yield f"{part} {key}: docker has {theirs.get(key)!r}, bastide {ours.get(key)!r}"
        elif ours != theirs:
            yield f"{part}: docker has {theirs!r}, bastide {ours!r}"

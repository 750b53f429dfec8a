"""The figures of making and moving images, as a table; what the engines work on is laid out here too."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from bench.contenders import Contender
from bench.image import NAME, PORT
from bench.measure import Case, Goal, milliseconds, run
from bench.stage import Stage

BUILDERS = ("docker", "docker buildkit", "podman", "buildah", "bastide")
MOVERS = ("docker", "podman", "buildah", "bastide")
LOADED = "localhost/loaded:1"
PARTS = 8
_THREE = f"""\
FROM {NAME}
COPY files /opt/files
RUN python3 -c "print('hello')" >/opt/hello
RUN mkdir /opt/more && cp -a /opt/files /opt/more && rm /opt/hello
"""
_TEN = "".join(
    [
        *(f"FROM {NAME} AS part{number}\nRUN seq {number} 100000 | sha256sum >/sum\n" for number in range(PARTS)),
        f"FROM {NAME} AS all\n",
        *(f"COPY --from=part{number} /sum /sums/{number}\n" for number in range(PARTS)),
        f"FROM {NAME}\nCOPY --from=all /sums /sums\nRUN cat /sums/* >/sum\n",
    ]
)
"""Eight stages that know nothing of each other, one that gathers from them, and the result."""
DOCKERFILES = {"three": _THREE, "ten": _TEN}
CHANGE = "cp -a /usr/lib/python3.11 /opt/copy && rm -r /usr/share/perl5"
"""Some 1,500 files of 30 MB, and a directory less."""


def _tag(contender: Contender, version: str) -> str:
    return f"127.0.0.1:{PORT}/made/{contender.name.replace(' ', '-')}:{version}"


def _context(stage: Stage, name: str) -> Path:
    """The context of a Dockerfile: some hundred small files and a larger one."""
    folder = stage.work / f"context-{name}"
    if not folder.exists():
        (folder / "files").mkdir(parents=True)
        for number in range(300):
            (folder / "files" / f"file{number}").write_text(f"{number}\n" * 200)
        (folder / "files" / "large").write_bytes(bytes(range(256)) * 8192)
        (folder / "Dockerfile").write_text(DOCKERFILES[name])
    return folder


def _build(name: str, *, cached: bool) -> Callable[[Contender, Stage], float]:
    def sample(contender: Contender, stage: Stage) -> float:
        command = contender.build(_context(stage, name), _tag(contender, name), cached=cached)
        return milliseconds(command, contender.environment)

    return sample


def _fill_cache(name: str) -> Callable[[Contender, Stage], None]:
    def prepare(contender: Contender, stage: Stage) -> None:
        run(contender.build(_context(stage, name), _tag(contender, name), cached=True), contender.environment)

    return prepare


def _marked(stage: Stage, layer: Path) -> Path:
    """A copy of a layer with one entry more: nobody has it yet."""
    copy = stage.work / f"marked-{layer.name}"
    if not copy.exists():
        shutil.copyfile(layer, copy)
        with tarfile.open(copy, "a") as tar:
            tar.addfile(tarfile.TarInfo("marked"))
    return copy


def _bring(contender: Contender, stage: Stage) -> None:
    contender.bring(_marked(stage, stage.image.layers[1]), _tag(contender, "moved"))


def _push(contender: Contender, stage: Stage) -> float:
    # The registry forgets what the repositories had, so that every byte travels each time.
    shutil.rmtree(stage.work / "registry/data/docker/registry/v2/repositories/made", ignore_errors=True)
    return milliseconds(contender.push(_tag(contender, "moved")), contender.environment)


def _save(contender: Contender, stage: Stage) -> float:
    target = stage.work / "saved.tar"
    target.unlink(missing_ok=True)
    return milliseconds(contender.save(NAME, target), contender.environment)


def _archive(stage: Stage) -> Path:
    """What `docker save` writes, of layers that nobody has."""
    archive = stage.work / "load.tar"
    if archive.exists():
        return archive
    layers = [_marked(stage, layer) for layer in stage.image.layers]
    diff_ids = ["sha256:" + hashlib.sha256(layer.read_bytes()).hexdigest() for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": name} for name in diff_ids],
    }
    manifest = [{"Config": "config.json", "RepoTags": [LOADED], "Layers": [layer.name for layer in layers]}]
    for name, document in (("config.json", config), ("manifest.json", manifest)):
        (stage.work / name).write_text(json.dumps(document))
    with tarfile.open(archive, "w") as tar:
        for path in (*layers, stage.work / "config.json", stage.work / "manifest.json"):
            tar.add(path, path.name)
    return archive


def _load(contender: Contender, stage: Stage) -> float:
    taken = milliseconds(contender.load(_archive(stage)), contender.environment)
    contender.remove_image(LOADED)
    return taken


def _change(contender: Contender, _stage: Stage) -> None:
    contender.sleeper = contender.change(NAME, CHANGE)


def _commit(contender: Contender, _stage: Stage) -> float:
    return milliseconds(contender.commit(contender.sleeper, _tag(contender, "committed")), contender.environment)


CASES = (
    Case("build3", "build of 3 steps, no cache", "ms", (7, 2), BUILDERS, _build("three", cached=False)),
    Case(
        "build3-cached",
        "build of 3 steps, cached",
        "ms",
        (9, 3),
        BUILDERS,
        _build("three", cached=True),
        prepare=_fill_cache("three"),
    ),
    Case("build10", "build of 10 stages, no cache", "ms", (5, 1), BUILDERS, _build("ten", cached=False)),
    Case(
        "build10-cached",
        "build of 10 stages, cached",
        "ms",
        (9, 3),
        BUILDERS,
        _build("ten", cached=True),
        prepare=_fill_cache("ten"),
    ),
    Case("push", "push of one layer over loopback", "ms", (7, 2), MOVERS, _push, prepare=_bring),
    Case("save", "save to a docker-archive", "ms", (7, 2), MOVERS, _save),
    Case("load", "load of a docker-archive", "ms", (7, 2), MOVERS, _load),
    Case(
        "commit",
        "commit of a running container",
        "ms",
        (7, 2),
        MOVERS,
        _commit,
        prepare=_change,
        tidy=lambda contender, _: contender.remove(contender.sleeper),
    ),
)

GOALS = (
    *(Goal(case.name, "bastide", "docker", 1, 0.5) for case in CASES),
    *(Goal(case.name, "bastide", "docker buildkit", 1, 0.5) for case in CASES if "docker buildkit" in case.contenders),
)

"""Images through other engines and back: skopeo, podman, buildah and docker, by archive and by registry.

Every tool keeps the image's id and its layers' digests; those that copy, and ours, keep the manifest's too.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.living import Daemon, busybox_archive, mounts_below
from tests.record_dockerfiles import Docker
from tests.registry import Registry, remote_digest

IMAGES = {"docker-archive": "ours:1", "oci-archive": "oci:1"}
"""An image of each form: what translates one into the other makes a new one."""

Tool = Callable[..., str]
"""Runs a tool's command and gives its stdout."""


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon("rt", "10.94.0.0/16", "10.106.0.0/16", prepared_namespaces="0")
    try:
        made.start()
        archive = busybox_archive(tmp_path_factory.mktemp("image") / "busybox.tar")
        made.ok("load", "-q", "-i", str(archive))
        context = tmp_path_factory.mktemp("context")
        (context / "Dockerfile").write_text("FROM busybox\nRUN echo made >/made\nENV A=1\nLABEL b=2\nCMD cat /made\n")
        made.ok("build", "-q", "--network=none", "-t", IMAGES["docker-archive"], str(context))
        _add_oci_form(made, context)
        yield made
    finally:
        made.close()


def _add_oci_form(engine: Daemon, folder: Path) -> None:
    """The same image as skopeo translates it from Docker's form."""
    ours, theirs = folder / "ours.tar", folder / "theirs.tar"
    engine.ok("save", "-o", str(ours), IMAGES["docker-archive"])
    skopeo = _runner("skopeo", "--insecure-policy", environment={})
    skopeo("copy", "-q", f"docker-archive:{ours}", f"oci-archive:{theirs}:{IMAGES['oci-archive']}")
    engine.ok("load", "-q", "-i", str(theirs))


def _runner(*program: str, environment: dict[str, str]) -> Tool:
    def run(*words: str) -> str:
        done = subprocess.run(
            [*program, *words], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{' '.join((*program, *words))}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return run


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A store of their own for podman and buildah."""
    base = tmp_path_factory.mktemp("containers")
    (base / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{base}/graph"\nrunroot = "{base}/run"\n'
    )
    (base / "containers.conf").write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
    yield {
        "CONTAINERS_STORAGE_CONF": str(base / "storage.conf"),
        "CONTAINERS_CONF": str(base / "containers.conf"),
    }
    for line in reversed(mounts_below(base)):
        subprocess.run(["umount", "-l", line], check=False)


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    made = Docker(tmp_path_factory.mktemp("dockerd"))
    yield made
    made.stop()


def inspect(engine: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.ok("image", "inspect", name))[0]
    return found


def check(engine: Daemon, before: dict[str, Any], after: dict[str, Any]) -> None:
    """The same image, and it runs."""
    assert after["Id"] == before["Id"]
    assert after["RootFS"] == before["RootFS"]
    assert engine.ok("run", "--rm", "--network=none", after["Id"]) == "made"


def fresh(engine: Daemon, name: str) -> dict[str, Any]:
    """Forget an image altogether; gives what it was."""
    before = inspect(engine, name)
    engine.ok("rmi", "-f", before["Id"])
    engine.ok("builder", "prune", "-af")
    assert engine.cli("image", "inspect", before["Id"]).returncode == 1
    return before


@pytest.fixture(params=["docker-archive", "oci-archive"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def saved(engine: Daemon, form: str, tmp_path: Path) -> Iterator[Path]:
    """The image as we save it; it is back afterwards."""
    target = tmp_path / "ours.tar"
    engine.ok("save", "-o", str(target), IMAGES[form])
    yield target
    engine.ok("load", "-q", "-i", str(target))


def test_archives_through_skopeo(engine: Daemon, saved: Path, tmp_path: Path, form: str) -> None:
    skopeo = _runner("skopeo", "--insecure-policy", environment={})
    theirs = tmp_path / "theirs.tar"
    skopeo("copy", "-q", f"{form}:{saved}", f"{form}:{theirs}:{IMAGES[form]}")
    before = fresh(engine, IMAGES[form])
    engine.ok("load", "-q", "-i", str(theirs))
    after = inspect(engine, IMAGES[form])
    check(engine, before, after)
    if form == "oci-archive":
        # The other form has no manifest of its own.
        assert after["Manifest"]["digest"] == before["Manifest"]["digest"]


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_archives_through_podman_and_buildah(
    engine: Daemon, saved: Path, tmp_path: Path, storage: dict[str, str], name: str, form: str
) -> None:
    tool = _runner(name, environment=storage)
    theirs = tmp_path / "theirs.tar"
    tool("pull", "-q", f"{form}:{saved}")
    identity = inspect(engine, IMAGES[form])["Id"].removeprefix("sha256:")
    tool("push", "-q", identity, f"{form}:{theirs}:localhost/back:1")
    tool("rmi", "-f", identity)
    before = fresh(engine, IMAGES[form])
    engine.ok("load", "-q", "-i", str(theirs))
    check(engine, before, inspect(engine, "localhost/back:1"))


def test_archives_through_docker(engine: Daemon, saved: Path, tmp_path: Path, dockerd: Docker, form: str) -> None:
    theirs, name = tmp_path / "theirs.tar", IMAGES[form]
    for words in (["load", "-q", "-i", str(saved)], ["save", "-o", str(theirs), name], ["rmi", "-f", name]):
        done = dockerd.run(*words)
        assert done.returncode == 0, done.stderr
    before = fresh(engine, name)
    engine.ok("load", "-q", "-i", str(theirs))
    check(engine, before, inspect(engine, name))


@pytest.mark.parametrize("name", ["skopeo", "podman", "buildah", "docker"])
def test_registries_through_others(
    engine: Daemon, registry: Registry, saved: Path, storage: dict[str, str], dockerd: Docker, form: str, name: str
) -> None:
    ours, theirs = f"{registry.host}/{form}/{name}:1", f"{registry.host}/theirs/{form}/{name}:1"
    engine.ok("tag", IMAGES[form], ours)
    engine.ok("push", "-q", ours)
    if name == "skopeo":
        tls = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        copy = _runner("skopeo", "--insecure-policy", environment={})
        copy("copy", "-q", "--preserve-digests", *tls, f"docker://{ours}", f"docker://{theirs}")
        assert remote_digest(theirs) == remote_digest(ours)
    elif name == "docker":
        for words in (["pull", "-q", ours], ["tag", ours, theirs], ["push", "-q", theirs], ["rmi", "-f", ours, theirs]):
            done = dockerd.run(*words)
            assert done.returncode == 0, done.stderr
    else:
        tool = _runner(name, environment=storage)
        tool("pull", "-q", "--tls-verify=false", ours)
        tool("push", "-q", "--tls-verify=false", ours, f"docker://{theirs}")
        tool("rmi", "-f", ours)
    before = fresh(engine, IMAGES[form])
    engine.ok("pull", "-q", theirs)
    check(engine, before, inspect(engine, theirs))
    again = f"{registry.host}/again/{form}/{name}:1"
    engine.ok("tag", theirs, again)
    engine.ok("push", "-q", again)
    assert remote_digest(again) == remote_digest(theirs)

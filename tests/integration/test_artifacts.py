"""Artifacts, what refers to images, and manifest lists, against Debian's registry, which knows no referrers call."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import Daemon, busybox_archive
from tests.registry import MANIFEST, Registry, Remote, sha256


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


@pytest.fixture(scope="module")
def own() -> Iterator[Daemon]:
    made = Daemon("af", "10.93.0.0/16", "10.107.0.0/16", prepared_namespaces="0")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def engine(own: Daemon) -> Iterator[Daemon]:
    """A daemon that has nothing, and that has nothing left afterwards."""
    yield own
    for digest in own.ok("artifact", "ls", "-q", "--no-trunc").split():
        own.cli("artifact", "rm", digest)
    if ids := own.ok("images", "-aq", "--no-trunc").split():
        own.ok("rmi", "-f", *sorted(set(ids)))
    own.ok("image", "prune", "-f")
    assert list((own.data / "content" / "blobs" / "sha256").iterdir()) == []


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return busybox_archive(tmp_path / "busybox.tar")


def test_an_artifact_is_kept_and_goes_on(engine: Daemon, registry: Registry) -> None:
    source, target = Remote(registry, "things/chart"), Remote(registry, "copies/chart")
    made = source.artifact("1", "application/vnd.example.chart", b"the chart")
    engine.ok("pull", f"{source.name}:1")
    found = json.loads(engine.ok("artifact", "inspect", f"{source.name}:1"))[0]
    assert (found["Digest"], found["ArtifactType"]) == (made["digest"], "application/vnd.example.chart")
    assert engine.ok("images", "-q") == ""
    listed = engine.ok("artifact", "ls", "--format", "{{.Name}} {{.Type}}")
    assert listed == f"{source.name}:1 application/vnd.example.chart"
    engine.stop()
    engine.start()
    engine.ok("tag", f"{source.name}:1", f"{target.name}:2")
    engine.ok("artifact", "rm", f"{source.name}:1")
    engine.ok("push", "-q", f"{target.name}:2")
    assert sha256(target.manifest("2")) == made["digest"]
    assert target.has(sha256(b"the chart"))
    engine.ok("artifact", "rm", f"{target.name}:2")
    assert engine.ok("artifact", "ls", "-q") == ""
    assert engine.cli("artifact", "inspect", f"{source.name}:1").returncode == 1


def test_an_artifact_is_no_image(engine: Daemon, registry: Registry) -> None:
    source = Remote(registry, "things/plain")
    source.artifact("1", "application/vnd.example", b"x")
    done = engine.cli("run", "--rm", f"{source.name}:1", "true")
    assert done.returncode == 125
    assert "is not an image but an artifact: 'application/vnd.example'" in done.stderr


def test_an_artifact_with_other_bytes(engine: Daemon, registry: Registry) -> None:
    source = Remote(registry, "things/bad")
    source.artifact("1", "application/vnd.example", b"true bytes")
    digest = hashlib.sha256(b"true bytes").hexdigest()
    blob = registry.base / "store/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
    blob.write_bytes(b"evil bytes")
    done = engine.cli("pull", f"{source.name}:1")
    assert done.returncode == 1
    assert "does not match its digest" in done.stderr
    assert engine.ok("artifact", "ls", "-q") == ""


def test_what_refers_to_an_image_goes_with_it(engine: Daemon, registry: Registry, archive: Path) -> None:
    reference = registry.fill(archive, "ref/app:1")
    source, target = Remote(registry, "ref/app"), Remote(registry, "ref/copy")
    data = source.manifest("1")
    subject = {"mediaType": MANIFEST, "digest": sha256(data), "size": len(data)}
    first = source.artifact("sbom", "application/vnd.example.parts", b"parts", subject)
    second = source.artifact("seal", "application/vnd.example.seal", b"seal", first | {"artifactType": None})
    source.index(subject["digest"].replace(":", "-"), first)
    source.index(first["digest"].replace(":", "-"), second)

    engine.ok("pull", "-q", reference)
    assert engine.ok("artifact", "ls", "-q") == ""
    engine.ok("pull", "-q", "--referrers", reference)
    assert len(engine.ok("artifact", "ls", "-q").split()) == 2
    referrers = json.loads(engine.ok("image", "inspect", reference))[0]["Referrers"]
    assert [entry["digest"] for entry in referrers] == [first["digest"]]

    engine.ok("tag", reference, f"{target.name}:2")
    engine.ok("push", "-q", f"{target.name}:2")
    assert sha256(target.manifest(first["digest"])) == first["digest"]
    assert sha256(target.manifest(second["digest"])) == second["digest"]
    assert target.has(sha256(b"seal"))
    listed = json.loads(target.manifest(subject["digest"].replace(":", "-")))["manifests"]
    assert [(e["digest"], e["artifactType"]) for e in listed] == [(first["digest"], "application/vnd.example.parts")]
    engine.ok("push", "-q", f"{target.name}:2")
    assert json.loads(target.manifest(subject["digest"].replace(":", "-")))["manifests"] == listed

    engine.ok("rmi", "-f", json.loads(engine.ok("image", "inspect", reference))[0]["Id"])
    assert engine.ok("artifact", "ls", "-q") == ""


def test_manifest_lists(engine: Daemon, registry: Registry, archive: Path) -> None:
    for name in ("many/app:amd64", "many/app:arm64", "elsewhere/app:v7"):
        registry.fill(archive, name)
    host, name = registry.host, f"{registry.host}/many/app:1"
    engine.ok("manifest", "create", name, f"{host}/many/app:amd64", f"{host}/many/app:arm64")
    again = engine.cli("manifest", "create", name, f"{host}/many/app:amd64")
    assert again.returncode == 1
    assert "refusing to amend" in again.stderr
    engine.ok("manifest", "create", "--amend", name, f"{host}/elsewhere/app:v7")
    engine.ok("manifest", "annotate", "--arch", "arm64", "--variant", "v8", name, f"{host}/many/app:arm64")
    engine.ok("manifest", "annotate", "--arch", "arm", "--variant", "v7", name, f"{host}/elsewhere/app:v7")
    here = json.loads(engine.ok("manifest", "inspect", name))
    platforms = [(e["platform"]["architecture"], e["platform"].get("variant", "")) for e in here["manifests"]]
    assert platforms == [("amd64", ""), ("arm64", "v8"), ("arm", "v7")]
    digest = engine.ok("manifest", "push", "--purge", name)
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True
    ).stdout
    assert sha256(raw) == digest
    assert json.loads(raw) == here == json.loads(engine.ok("manifest", "inspect", name))
    engine.ok("pull", "-q", name)
    assert json.loads(engine.ok("image", "inspect", name))[0]["Descriptor"]["digest"] == digest
    gone = engine.cli("manifest", "rm", name)
    assert gone.returncode == 1
    assert "No such manifest" in gone.stderr


def test_a_manifest_list_of_another_registry_is_refused(engine: Daemon, registry: Registry, archive: Path) -> None:
    registry.fill(archive, "here/app:1")
    name = f"localhost:{registry.port}/there/app:1"
    engine.ok("manifest", "create", name, f"{registry.host}/here/app:1")
    done = engine.cli("manifest", "push", name)
    assert done.returncode == 1
    assert "cannot use source images from a different registry than the target image" in done.stderr
    engine.ok("manifest", "rm", name)
    missing = engine.cli("manifest", "create", name, f"{registry.host}/here/app:absent")
    assert missing.returncode == 1
    assert "not found" in missing.stderr

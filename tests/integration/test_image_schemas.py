"""Every document that is written about an image holds to the image specification."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image_schemas import INDEX, MANIFEST, check, check_archive
from tests.living import Daemon
from tests.registry import Registry

from bastide.images.manifest import make_index
from bastide.model.image import Descriptor


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def saved(daemon: Daemon, folder: Path, *names: str) -> list[str]:
    """The images' archive, checked; gives what its index names."""
    target = folder / f"saved-{os.urandom(4).hex()}.tar"
    daemon.ok("save", "-o", str(target), *names)
    return check_archive(target.read_bytes())


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_what_is_built(daemon: Daemon, tmp_path: Path, form: str) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nMAINTAINER somebody\nRUN touch /a\nENV A=b\nEXPOSE 80\nVOLUME /v\nLABEL l=m\n"
        'HEALTHCHECK CMD true\nONBUILD RUN true\nSTOPSIGNAL 9\nSHELL ["/bin/sh"]\nUSER 1\nWORKDIR /w\n'
        'ENTRYPOINT ["x"]\n'
    )
    daemon.ok("build", "-q", "--network=none", f"--compression={form}", "-t", f"schema:{form}", str(tmp_path))
    (tmp_path / "empty").write_text("FROM scratch\nLABEL a=b\n")
    daemon.ok("build", "-q", "-f", str(tmp_path / "empty"), "-t", "schema:empty", str(tmp_path))
    assert len(saved(daemon, tmp_path, f"schema:{form}", "schema:empty", "busybox")) == 3


def test_what_is_committed_squashed_and_imported(daemon: Daemon, tmp_path: Path) -> None:
    daemon.ok("run", "--name=changed", "--network=none", "busybox", "touch", "/new")
    daemon.ok("commit", "-c", "CMD true", "-a", "me", "-m", "why", "changed", "schema:committed")
    root = tmp_path / "root.tar"
    daemon.ok("export", "-o", str(root), "changed")
    daemon.ok("import", "-m", "from a file", str(root), "schema:imported")
    daemon.ok("rm", "changed")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN touch /a\nRUN touch /b\n")
    daemon.ok("build", "-q", "--squash", "--network=none", "-t", "schema:squashed", str(tmp_path))
    assert len(saved(daemon, tmp_path, "schema:committed", "schema:imported", "schema:squashed")) == 3


def test_what_is_pushed(daemon: Daemon, registry: Registry) -> None:
    names = [f"{registry.host}/schema/app:{number}" for number in (1, 2)]
    for name in names:
        daemon.ok("tag", "busybox", name)
        daemon.ok("push", "-q", name)
        raw = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True
        ).stdout
        check(json.loads(raw), MANIFEST)
    daemon.ok("manifest", "create", f"{registry.host}/schema/app:both", *names)
    check(json.loads(daemon.ok("manifest", "inspect", f"{registry.host}/schema/app:both")), INDEX)
    daemon.ok("manifest", "rm", f"{registry.host}/schema/app:both")


def test_lists_of_referrers() -> None:
    entry = Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json",
        digest="sha256:" + "0" * 64,
        size=1,
        artifact_type="application/vnd.example",
        annotations={"a": "b"},
    )
    check(json.loads(make_index([entry])), INDEX)

"""Images end to end: Debian's registry on loopback, skopeo and podman as the other side."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.image_schemas import check_archive
from tests.living import Daemon, busybox_archive
from tests.registry import Registry, remote_digest


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


@pytest.fixture(scope="module")
def own() -> Iterator[Daemon]:
    """A daemon of its own, without images."""
    made = Daemon("im", "10.97.0.0/16", "10.103.0.0/16", prepared_namespaces="0")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def engine(own: Daemon) -> Iterator[Daemon]:
    yield own
    own.clear()
    if ids := own.ok("images", "-aq", "--no-trunc").split():
        own.ok("rmi", "-f", *sorted(set(ids)))
    own.ok("image", "prune", "-f")
    assert blobs(own) == []
    assert not list((own.data / "overlay" / "layers").glob("*"))


def blobs(engine: Daemon) -> list[str]:
    """Digests of the content store."""
    return sorted(path.name for path in (engine.data / "content" / "blobs" / "sha256").iterdir())


def inspect(engine: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.ok("image", "inspect", name))[0]
    return found


def test_pull_run_remove(engine: Daemon, registry: Registry, archive: Path) -> None:
    reference = registry.fill(archive, "app:1")
    engine.ok("pull", reference)
    shown = inspect(engine, reference)
    assert shown["RepoTags"] == [reference]
    assert shown["RepoDigests"] == [f"{registry.host}/app@{remote_digest(reference)}"]
    assert shown["Config"]["Env"] == ["PATH=/bin", "FROM_IMAGE=yes"]
    assert engine.ok("run", "--rm", "--network", "none", reference, "echo", "whole") == "whole"
    assert engine.ok("images", "-q", "--no-trunc") == shown["Id"]
    assert "up to date" in engine.ok("pull", reference)
    engine.ok("rmi", reference)
    assert engine.cli("image", "inspect", reference).returncode == 1


def test_pull_by_digest(engine: Daemon, registry: Registry, archive: Path) -> None:
    reference = registry.fill(archive, "bydigest:1")
    digest = remote_digest(reference)
    name = f"{registry.host}/bydigest@{digest}"
    engine.ok("pull", "-q", name)
    assert inspect(engine, name)["RepoTags"] == []


def test_errors_are_one_line(engine: Daemon, registry: Registry) -> None:
    for name, text in (
        (f"{registry.host}/none:1", f"manifest for {registry.host}/none:1 not found: manifest unknown"),
        ("127.0.0.1:1/none", "does not answer"),
        ("UPPER", "must be lowercase"),
    ):
        failed = engine.cli("pull", name)
        assert failed.returncode == 1
        assert text in failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1
        assert "Traceback" not in failed.stderr


def test_push_keeps_the_digest(engine: Daemon, registry: Registry, archive: Path) -> None:
    reference = registry.fill(archive, "src:1")
    engine.ok("pull", "-q", reference)
    for target in (f"{registry.host}/copies/dst:2", f"{registry.host}/copies/dst:3"):
        engine.ok("tag", reference, target)
        engine.ok("push", target)
        assert remote_digest(target) == remote_digest(reference)
    fresh = Registry()
    try:
        engine.ok("tag", reference, f"{fresh.host}/new:1")
        engine.ok("push", "-q", f"{fresh.host}/new:1")
        assert remote_digest(f"{fresh.host}/new:1") == remote_digest(reference)
    finally:
        fresh.close()
    failed = engine.cli("push", f"{registry.host}/absent:1")
    assert failed.returncode == 1
    assert "An image does not exist locally with the tag" in failed.stderr


@pytest.mark.parametrize("form", ["oci", "v2s2"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_both_formats_are_kept_as_they_came(
    engine: Daemon, registry: Registry, archive: Path, form: str, compression: str
) -> None:
    if (form, compression) == ("v2s2", "zstd"):
        compression = "gzip"  # Docker's schema 2 knows no zstd
    reference = f"{registry.host}/form-{form}-{compression}:1"
    options = ["--dest-tls-verify=false", f"--format={form}", f"--dest-compress-format={compression}"]
    subprocess.run(
        ["skopeo", "copy", "-q", "--insecure-policy", *options, f"docker-archive:{archive}", f"docker://{reference}"],
        check=True,
    )
    engine.ok("pull", "-q", reference)
    target = f"{registry.host}/again-{form}-{compression}:1"
    engine.ok("tag", reference, target)
    engine.ok("push", "-q", target)
    assert remote_digest(target) == remote_digest(reference)


def test_save_and_load_keep_every_byte(engine: Daemon, registry: Registry, archive: Path, tmp_path: Path) -> None:
    reference = registry.fill(archive, "saved:1")
    engine.ok("pull", "-q", reference)
    engine.ok("tag", reference, "other:name")
    before = inspect(engine, reference)
    out = tmp_path / "out.tar"
    engine.ok("save", "-o", str(out), reference, "other:name")
    engine.ok("rmi", "-f", before["Id"])
    engine.ok("load", "-i", str(out))
    after = inspect(engine, "other:name")
    assert after["Id"] == before["Id"]
    assert sorted(after["RepoTags"]) == sorted(["other:name", reference])
    assert after["Descriptor"]["digest"] == before["Descriptor"]["digest"]
    again = tmp_path / "again.tar"
    engine.ok("save", "-o", str(again), reference, "other:name")
    assert again.read_bytes() == out.read_bytes()


def test_several_images_in_one_archive(engine: Daemon, tmp_path: Path) -> None:
    """All come back with their names and, where their layers are the same, share them; others find each one."""
    names = [f"several/{number}:1" for number in range(3)]
    for number, name in enumerate(names):
        made = busybox_archive(tmp_path / f"{number}.tar", name, {"Labels": {"number": str(number)}})
        engine.ok("load", "-q", "-i", str(made))
    before = [inspect(engine, name) for name in names]
    out = tmp_path / "all.tar"
    engine.ok("save", "-o", str(out), *names)
    check_archive(out.read_bytes())
    engine.ok("rmi", *names)
    assert blobs(engine) == []
    engine.ok("load", "-q", "-i", str(out))
    after = [inspect(engine, name) for name in names]
    assert [(found["Id"], found["Descriptor"]) for found in after] == [
        (found["Id"], found["Descriptor"]) for found in before
    ]
    assert len(list((engine.data / "overlay" / "layers").iterdir())) == 1
    for name, found in zip(names, before, strict=True):
        words = ["skopeo", "inspect", "--raw", "--config", f"docker-archive:{out}:{name}"]
        raw = subprocess.run(words, check=True, capture_output=True).stdout
        assert "sha256:" + hashlib.sha256(raw).hexdigest() == found["Id"]


def test_what_we_save_others_read(engine: Daemon, archive: Path, tmp_path: Path) -> None:
    engine.ok("load", "-i", str(archive))
    out = tmp_path / "out.tar"
    engine.ok("save", "-o", str(out), "busybox")
    wanted = inspect(engine, "busybox")["Id"]
    for source in (f"docker-archive:{out}", f"oci-archive:{out}"):
        target = tmp_path / source.partition(":")[0]
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", source, f"dir:{target}"], check=True)
        manifest = json.loads((target / "manifest.json").read_text())
        assert manifest["config"]["digest"] == wanted


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_what_others_save_we_read(engine: Daemon, archive: Path, tmp_path: Path, transport: str) -> None:
    out = tmp_path / "theirs.tar"
    subprocess.run(
        ["skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{archive}", f"{transport}:{out}:their/name:7"],
        check=True,
    )
    subprocess.run(["gzip", "-k", out], check=True)
    engine.ok("load", "-i", str(out))
    assert "their/name:7" in engine.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    first = inspect(engine, "their/name:7")["Id"]
    engine.ok("load", "-i", f"{out}.gz")
    assert inspect(engine, "their/name:7")["Id"] == first


def test_hostile_archives(engine: Daemon, tmp_path: Path) -> None:
    def made(name: str, members: dict[str, bytes | str]) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w") as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                if isinstance(content, str):
                    info.type, info.linkname = tarfile.SYMTYPE, content
                    tar.addfile(info)
                else:
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return path

    item = b'[{"Config":"c.json","RepoTags":["evil:1"],"Layers":["layer.tar"]}]'
    config = b'{"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:' + b"0" * 64 + b'"]}}'
    cases: dict[str, dict[str, bytes | str]] = {
        "empty.tar": {},
        "outside.tar": {"manifest.json": item, "c.json": "/etc/hostname", "layer.tar": b""},
        "passwd.tar": {"manifest.json": item.replace(b"layer.tar", b"../../etc/passwd"), "c.json": config},
        "wrong.tar": {"manifest.json": item, "c.json": config, "layer.tar": b"not what it says"},
        "short.tar": {"manifest.json": item, "c.json": b'{"os":"linux"}', "layer.tar": b""},
        "json.tar": {"manifest.json": b"[" * 100_000},
        "names.tar": {
            "manifest.json": item.replace(b"evil:1", b"../evil"),
            "c.json": b'{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}',
        },
        "loop.tar": {"manifest.json": item, "c.json": config, "layer.tar": "layer.tar"},
    }
    for name, members in cases.items():
        failed = engine.cli("load", "-i", str(made(name, members)))
        assert failed.returncode == 1, name
        assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
        assert "Traceback" not in failed.stderr
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(b"x" * 100_000)[:100])
    assert engine.cli("load", "-i", str(tmp_path / "cut.tar.gz")).returncode == 1
    assert engine.ok("images", "-q") == ""
    assert not list((engine.data / "content" / "ingest").iterdir())
    engine.ok("image", "prune", "-af")
    assert "Traceback" not in engine.log.read_text()


def test_import_and_export(engine: Daemon, archive: Path, tmp_path: Path) -> None:
    engine.ok("load", "-i", str(archive))
    engine.ok("create", "--name", "source", "--network", "none", "busybox", "true")
    root = tmp_path / "root.tar"
    engine.ok("export", "-o", str(root), "source")
    engine.ok("import", "--change", "LABEL a=b", "--message", "flattened", str(root), "flat:1")
    assert engine.ok("run", "--rm", "--network", "none", "flat:1", "/bin/cat", "/var/www/index.html") == (
        "hello from the image"
    )
    shown = inspect(engine, "flat:1")
    assert len(shown["RootFS"]["Layers"]) == 1
    assert (shown["Config"]["Labels"], shown["Comment"]) == ({"a": "b"}, "flattened")


def test_export_of_a_vm(engine: Daemon, archive: Path, tmp_path: Path) -> None:
    """What a VM changed goes out as a container's changes do."""
    engine.ok("load", "-i", str(archive))
    engine.ok("run", "-d", "--name", "source", "--isolation=vm", "--network=none", "busybox", "sleep", "600")
    engine.ok("exec", "source", "sh", "-c", "echo changed > /var/www/index.html; rm -r /home")
    engine.ok("export", "-o", str(tmp_path / "root.tar"), "source")
    with tarfile.open(tmp_path / "root.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
        assert {"bin/busybox", "var/www/index.html", "etc/passwd"} <= names
        assert "home" not in names
    engine.ok("import", str(tmp_path / "root.tar"), "flat:1")
    assert engine.ok("run", "--rm", "--network", "none", "flat:1", "/bin/cat", "/var/www/index.html") == "changed"
    engine.ok("stop", "-t", "0", "source")
    # It need not run.
    engine.ok("export", "-o", str(tmp_path / "again.tar"), "source")
    with tarfile.open(tmp_path / "again.tar") as tar:
        assert {name.removeprefix("./") for name in tar.getnames()} == names
    engine.ok("commit", "source", "kept:1")
    assert engine.ok("run", "--rm", "--network", "none", "kept:1", "/bin/cat", "/var/www/index.html") == "changed"


def test_prune_takes_what_its_filters_say(engine: Daemon, tmp_path: Path) -> None:
    for name, label in (("kept", "keep"), ("labelled", "drop"), ("plain", "")):
        config = {"Labels": {label: "yes"}} if label else {}
        engine.ok("load", "-q", "-i", str(busybox_archive(tmp_path / f"{name}.tar", f"{name}:1", config)))

    def left() -> list[str]:
        return sorted(engine.ok("images", "--format", "{{.Repository}}").splitlines())

    engine.ok("image", "prune", "-af", "--filter", "label=drop")
    assert left() == ["kept", "plain"]
    engine.ok("image", "prune", "-af", "--filter", "until=2000-01-01T00:00:00Z")
    assert left() == ["kept", "plain"]
    engine.ok("image", "prune", "-af", "--filter", "label!=keep")
    assert left() == ["kept"]
    wrong = engine.cli("image", "prune", "-af", "--filter", "colour=blue")
    assert wrong.returncode == 1
    assert "invalid filter" in wrong.stderr
    assert left() == ["kept"]
    engine.ok("image", "prune", "-af", "--filter", "until=1h")
    assert left() == []


def test_app_container_image(engine: Daemon, tmp_path: Path) -> None:
    """rkt's format, run as it is."""
    manifest = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "example.com/busy",
        "labels": [{"name": "version", "value": "2"}, {"name": "arch", "value": "amd64"}],
        "app": {"exec": ["/bin/busybox", "echo"], "user": "0", "group": "0", "environment": []},
    }
    members = {"manifest": json.dumps(manifest).encode(), "rootfs/bin/busybox": Path("/bin/busybox").read_bytes()}
    path = tmp_path / "busy.aci"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    engine.ok("load", "-i", str(path))
    first = inspect(engine, "example.com/busy:2")["Id"]
    for wall in ("container", "vm"):
        words = ["--rm", f"--isolation={wall}", "--network", "none", "example.com/busy:2", "from", "rkt"]
        assert engine.ok("run", *words) == "from rkt"
    engine.ok("load", "-i", str(path))
    assert inspect(engine, "example.com/busy:2")["Id"] == first


def test_layers_follow_the_containers(engine: Daemon, registry: Registry, archive: Path) -> None:
    """A forced removal leaves a stopped container whole."""
    reference = registry.fill(archive, "gone:1")
    engine.ok("pull", "-q", reference)
    engine.ok("create", "--name", "left", "--network", "none", reference, "echo", "alive")
    refused = engine.cli("rmi", reference)
    assert refused.returncode == 1
    assert "conflict: unable to remove repository reference" in refused.stderr
    engine.ok("rmi", "-f", reference)
    assert engine.ok("start", "-a", "left") == "alive"


def test_other_users_of_the_host_reach_no_file(engine: Daemon, archive: Path) -> None:
    """A program of an image that sets the user id is nobody's way to become root (CVE-2021-41091)."""
    engine.ok("load", "-i", str(archive))
    engine.ok("run", "-d", "--name", "up", "--network", "none", "busybox", "sleep", "100")
    engine.base.chmod(0o755)
    (layer,) = inspect(engine, "busybox")["RootFS"]["Layers"]
    places = [engine.data / "overlay" / "layers" / layer[7:], engine.run_root / "roots" / engine.inspect("up")["Id"]]
    for place in places:
        assert (place / "bin" / "busybox").exists()
        with pytest.raises(PermissionError):
            subprocess.run([place / "bin" / "busybox", "true"], user=65534, group=65534, extra_groups=[], check=False)
    blob = next((engine.data / "content" / "blobs" / "sha256").iterdir())
    read = subprocess.run(["cat", blob], user=65534, group=65534, extra_groups=[], capture_output=True, check=False)
    assert b"Permission denied" in read.stderr

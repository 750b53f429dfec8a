"""SIGKILL while images move in any way: no half image, and the next try completes (ATTACKS 38)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import random
import subprocess
import tarfile
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image_schemas import check_archive
from tests.living import CLI, Daemon
from tests.registry import Gate, Registry, Remote

ROUNDS = int(os.environ.get("BASTIDE_IMAGE_CRASH_ROUNDS", "12"))
LAYERS = 4


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """The image's files: a few layers of many small files and one large one."""
    rng = random.Random(7)
    return {
        f"layer{number}/{name}": rng.randbytes(size)
        for number in range(LAYERS)
        for name, size in [("large", 3_000_000), *((f"small{n}", 500) for n in range(300))]
    }


@pytest.fixture
def archive(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    layers = []
    for number in range(LAYERS):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in contents.items():
                if name.startswith(f"layer{number}/"):
                    add(tar, name, data)
        layers.append(buffer.getvalue())
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    names = [f"{number}.tar" for number in range(LAYERS)]
    manifest = [{"Config": "config.json", "RepoTags": ["large:1"], "Layers": names}]
    path = tmp_path / "large.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "config.json", json.dumps(config).encode())
        add(tar, "manifest.json", json.dumps(manifest).encode())
        for name, layer in zip(names, layers, strict=True):
            add(tar, name, layer)
    return path


@pytest.fixture
def victim() -> Iterator[Daemon]:
    made = Daemon("ic", "10.96.0.0/16", "10.104.0.0/16", prepared_namespaces="0")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def check(victim: Daemon, contents: dict[str, bytes]) -> None:
    """Every blob and every layer that is in place is whole; nothing is staged."""
    for blob in (victim.data / "content" / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    for layer in (victim.data / "overlay" / "layers").iterdir():
        found = {str(path.relative_to(layer)): path for path in layer.rglob("*") if path.is_file()}
        (number,) = {name.partition("/")[0] for name in found}
        wanted = {name: data for name, data in contents.items() if name.startswith(number + "/")}
        assert found.keys() == wanted.keys()
        assert all(found[name].read_bytes() == data for name, data in wanted.items())
    for name in victim.ok("images", "--format", "{{.ID}}").split():
        victim.ok("save", "-o", os.devnull, name)


@pytest.mark.timeout(600)
def test_killed_while_images_move(
    victim: Daemon, registry: Registry, archive: Path, contents: dict[str, bytes]
) -> None:
    reference = registry.fill(archive, "large:1")
    rng = random.Random()
    began = time.monotonic()
    victim.ok("pull", "-q", reference)
    whole = time.monotonic() - began
    victim.ok("rmi", "-f", reference)
    copy, out = f"{registry.host}/copy:1", archive.with_name("out.tar")
    for number in range(ROUNDS):
        victim.cli("tag", "large:1", copy)
        victim.cli("create", "--pull=never", "--name=made", "--network=none", "large:1", "true")
        commands = [
            ["pull", "-q", reference],
            ["load", "-q", "-i", str(archive)],
            ["rmi", "-f", reference],
            ["push", "-q", copy],
            ["save", "-o", str(out), "large:1"],
            ["commit", "made", "committed:1"],
        ]
        work = [
            subprocess.Popen(
                [*CLI, *command],
                env=victim.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for command in rng.sample(commands, rng.choice((1, 2, 3, 4)))
        ]
        time.sleep(rng.random() * (whole + 0.2))
        victim.stop(9)
        for process in work:
            process.wait(60)
        victim.start()
        check(victim, contents)
        if out.exists():
            check_archive(out.read_bytes())
            out.unlink()
        assert not list(out.parent.glob(".*")), "what was being saved"
        if number % 4 == 3:
            victim.cli("rm", "made")
            victim.ok("image", "prune", "-af")
    victim.ok("pull", "-q", reference)
    victim.ok("load", "-q", "-i", str(archive))
    victim.ok("tag", "large:1", copy)
    victim.ok("push", "-q", copy)
    theirs = ["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{copy}"]
    subprocess.run([*theirs, f"oci:{out.with_name('theirs')}"], check=True)
    victim.cli("rm", "made")
    victim.ok("rmi", copy)
    victim.cli("rmi", "committed:1")
    check(victim, contents)
    assert len(list((victim.data / "overlay" / "layers").iterdir())) == LAYERS
    victim.ok("rmi", "-f", reference, "large:1")
    victim.ok("image", "prune", "-af")
    for place in ("content/blobs/sha256", "content/ingest", "overlay/layers", "overlay/staging"):
        assert list((victim.data / place).iterdir()) == [], place


# -- the other side goes -------------------------------------------------------------------------------


@pytest.fixture
def gate(registry: Registry) -> Iterator[Gate]:
    made = Gate(registry.port)
    yield made
    made.close()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command says."""
    assert done.returncode, done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("through", ["pull", "build"])
def test_registry_gone_while_it_gives(
    victim: Daemon, registry: Registry, gate: Gate, archive: Path, contents: dict[str, bytes], through: str
) -> None:
    registry.fill(archive, "large:1")
    reference = f"{gate.host}/large:1"
    (archive.parent / "Dockerfile").write_text(f"FROM {reference}\nCOPY Dockerfile /layer0/Dockerfile\n")
    (archive.parent / ".dockerignore").write_text("*.tar\n")
    command = {"pull": ["pull", reference], "build": ["build", "-t", "built:1", str(archive.parent)]}[through]
    size, rng = archive.stat().st_size, random.Random()
    for _ in range(4):
        gate.left = rng.randrange(size // 6)
        line = one_line(victim.cli(*command))
        assert gate.host in line, line
        assert victim.ok("images", "-q") == ""
        check(victim, contents)
    gate.left = math.inf
    victim.ok(*command)
    names = {"pull": {reference}, "build": {"built:1", reference}}[through]
    assert names <= set(victim.ok("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines())
    assert not list((victim.data / "content" / "ingest").iterdir())


@pytest.mark.timeout(300)
def test_registry_gone_while_it_takes(victim: Daemon, registry: Registry, gate: Gate, archive: Path) -> None:
    victim.ok("load", "-q", "-i", str(archive))
    victim.ok("tag", "large:1", f"{gate.host}/large:1")
    there, size, rng = Remote(registry, "large"), archive.stat().st_size, random.Random()
    for _ in range(4):
        gate.left = rng.randrange(size // 6)
        assert gate.host in one_line(victim.cli("push", f"{gate.host}/large:1"))
        with pytest.raises(urllib.error.HTTPError):
            there.manifest("1")
    gate.left = math.inf
    victim.ok("push", "-q", f"{gate.host}/large:1")
    for part in (document := json.loads(there.manifest("1")))["layers"]:
        assert there.has(part["digest"])
    assert there.has(document["config"]["digest"])


@pytest.mark.timeout(300)
def test_client_gone_while_images_move(victim: Daemon, archive: Path, contents: dict[str, bytes]) -> None:
    """`load`, `save` and `commit` speak to nobody but their client."""
    out, rng = archive.with_name("out.tar"), random.Random()
    commands = [
        ["load", "-q", "-i", str(archive)],
        ["save", "-o", str(out), "large:1"],
        ["commit", "made", "committed:1"],
    ]
    for command in commands:
        for _ in range(4):
            client = subprocess.Popen([*CLI, *command], env=victim.environment, stdout=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(rng.random() * 0.3)
            client.kill()
            client.wait()
            check(victim, contents)
            if out.exists():
                check_archive(out.read_bytes())
        victim.ok(*command)
        if command[0] == "load":
            victim.ok("create", "--pull=never", "--name=made", "--network=none", "large:1", "true")
    check_archive(out.read_bytes())
    assert victim.ok("images", "-q", "committed:1")

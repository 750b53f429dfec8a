"""Files of a container that does not run: `cp` both ways, `diff`, `export`, `commit`; behind each wall the same."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from tests.clients.conftest import Docker
from tests.clients.engines import PEER

WALLS = ["container"] if PEER == "dockerd" else ["container", "vm"]


@pytest.fixture(params=WALLS)
def wall(request: pytest.FixtureRequest) -> list[str]:
    """The flags that choose the wall."""
    return [] if PEER == "dockerd" else ["--isolation", str(request.param)]


def test_into_one_that_never_ran(docker: Docker, wall: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before the start")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "file").write_text("below")
    docker("create", *wall, "--name", "still", "busybox", "cat", "/etc/file", "/tmp/folder/deep/file")
    docker("cp", str(tmp_path / "file"), "still:/etc/file")
    docker("cp", str(tmp_path / "folder"), "still:/tmp")
    docker("cp", "still:/etc/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "before the start"
    assert docker.field("still", "{{.State.Status}}") == "created"
    assert docker.ok("start", "-a", "still") == "before the startbelow"


def test_out_of_one_that_has_ended(docker: Docker, wall: list[str], tmp_path: Path) -> None:
    script = "echo kept > /root/kept; rm /var/www/index.html; mkdir /new; ln -s /root/kept /new/link"
    docker("run", *wall, "--name", "still", "busybox", "sh", "-c", script)
    docker("cp", "still:/root/kept", str(tmp_path / "kept"))
    assert (tmp_path / "kept").read_text() == "kept\n"
    docker("cp", "-L", "still:/new/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "kept\n"
    assert "Could not find the file /absent in container still" in docker("cp", "still:/absent", "-", code=1).err
    assert set(docker("diff", "still").lines) == {
        "C /root",
        "A /root/kept",
        "C /var",
        "C /var/www",
        "D /var/www/index.html",
        "A /new",
        "A /new/link",
    }
    docker("export", "-o", str(tmp_path / "all.tar"), "still")
    with tarfile.open(tmp_path / "all.tar") as tar:
        names = {name.removeprefix("./").rstrip("/") for name in tar.getnames()}
    assert {"root/kept", "bin/busybox", "new/link"} <= names
    assert "var/www/index.html" not in names
    docker("commit", "still", "made:1")
    assert docker.ok("run", "--rm", *wall, "made:1", "cat", "/new/link") == "kept"
    assert "File exists" in docker("start", "-a", "still", code=1).err
    docker("rmi", "-f", "made:1")


def test_volumes_are_meant_where_they_lie(docker: Docker, wall: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("for the volume")
    (tmp_path / "bound").mkdir()
    docker("create", *wall, "--name", "still", "-v", "data:/data", "-v", f"{tmp_path}/bound:/bound", "busybox", "true")
    docker("cp", str(tmp_path / "file"), "still:/data/file")
    docker("cp", str(tmp_path / "file"), "still:/bound/file")
    assert (tmp_path / "bound" / "file").read_text() == "for the volume"
    assert docker.ok("run", "--rm", *wall, "-v", "data:/other", "busybox", "cat", "/other/file") == "for the volume"
    docker("cp", "still:/data/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "for the volume"
    assert set(docker("diff", "still").lines) <= {"A /bound", "A /data"}


def test_a_file_does_not_replace_a_folder(docker: Docker, wall: list[str]) -> None:
    docker("create", *wall, "--name", "still", "busybox", "true")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("www"))
    done = docker("cp", "-", "still:/var", stdin=archive.getvalue(), code=1)
    assert "cannot overwrite directory" in done.err
    docker("start", "still")
    docker("wait", "still")


@pytest.mark.beyond
@pytest.mark.parametrize("running", [False, True], ids=["created", "running"])
def test_all_of_it_for_the_user(docker: Docker, wall: list[str], tmp_path: Path, *, running: bool) -> None:
    (tmp_path / "file").write_text("x")
    docker("create", *wall, "--name", "still", "--user", "1000:2000", "busybox", "sleep", "1000")
    if running:
        docker("start", "still")
    docker("cp", "-a", str(tmp_path / "file"), "still:/home/mine")
    if not running:
        docker("start", "still")
    assert docker.ok("exec", "still", "stat", "-c", "%u:%g", "/home/mine") == "1000:2000"


def test_a_read_only_root_stays_so(docker: Docker, wall: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    docker("create", *wall, "--name", "still", "--read-only", "-v", "data:/data", "busybox", "true")
    assert "container rootfs is marked read-only" in docker("cp", str(tmp_path / "file"), "still:/etc", code=1).err
    docker("cp", str(tmp_path / "file"), "still:/data")


@pytest.mark.beyond
def test_a_paused_vm_says_what_to_do(docker: Docker) -> None:
    docker("run", "-d", "--isolation", "vm", "--name", "still", "busybox", "sleep", "1000")
    docker("pause", "still")
    assert "unpause it first" in docker("cp", "still:/etc/passwd", "-", code=1).err
    docker("unpause", "still")

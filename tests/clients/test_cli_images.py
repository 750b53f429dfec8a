"""The docker command line on images, builds and the system."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from pathlib import Path

import pytest
from tests.clients.conftest import Docker


@pytest.fixture
def tagged(docker: Docker) -> str:
    """A second name of busybox."""
    docker("tag", "busybox", "other.example:5000/team/tool:1.2")
    return "other.example:5000/team/tool:1.2"


@pytest.fixture(autouse=True)
def only_busybox(docker: Docker) -> None:
    """Names that a test before this one left are removed."""
    for name in docker.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if name not in ("busybox:latest", "<none>:<none>"):
            docker("rmi", "-f", name)


def test_images(docker: Docker) -> None:
    head, row = docker("images", "busybox").lines
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert re.match(r"busybox\s+latest\s+[0-9a-f]{12}\s+.* ago\s+[\d.]+[kM]B", row)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", docker.ok("images", "-q", "--no-trunc", "busybox"))


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (["busybox"], 1),
        (["busybox:latest"], 1),
        (["busybox:9"], 0),
        (["nothing"], 0),
        (["--filter", "reference=busy*"], 1),
        (["--filter", "reference=other.example:5000/*/*"], 1),
        (["--filter", "dangling=true"], 0),
        (["--filter", "label=none"], 0),
        (["--filter", "before=nothing-here"], None),
        ([], 2),
    ],
    ids=str,
)
def test_image_filters(docker: Docker, tagged: str, flags: list[str], count: int | None) -> None:
    done = docker("images", "-q", *flags, code=0 if count is not None else 1)
    if count is not None:
        assert len(done.lines) == count


def test_tag_and_rmi(docker: Docker, tagged: str) -> None:
    assert docker.field(tagged, "{{.Id}}", "image") == docker.field("busybox", "{{.Id}}", "image")
    assert tagged in docker.field("busybox", "{{.RepoTags}}", "image")
    assert docker.ok("rmi", tagged) == f"Untagged: {tagged}"
    assert "No such image" in docker("inspect", "--type", "image", tagged, code=1).err


@pytest.mark.parametrize("name", ["UPPER", "a//b", "a:b:c", ":tag", "a@sha256:zz"])
def test_bad_references(docker: Docker, name: str) -> None:
    assert docker("tag", "busybox", name, code=1).err


def test_rmi_of_a_used_image(docker: Docker) -> None:
    docker("create", "--name", "user", "busybox")
    assert re.search(r"(?i)conflict.*(is using|container)", docker("rmi", "busybox", code=1).err)
    assert "No such image: nothing-here" in docker("rmi", "nothing-here", code=1).err


def test_image_inspect(docker: Docker) -> None:
    (shown,) = json.loads(docker.ok("image", "inspect", "busybox"))
    assert shown["Architecture"] == "amd64"
    assert shown["Os"] == "linux"
    assert shown["Config"]["Cmd"] == ["sh"]
    assert "FROM_IMAGE=yes" in shown["Config"]["Env"]
    assert shown["RootFS"]["Type"] == "layers"
    assert shown["RootFS"]["Layers"][0].startswith("sha256:")
    short = shown["Id"].removeprefix("sha256:")[:12]
    assert docker.field(short, "{{.Id}}", "image") == shown["Id"]


def test_history(docker: Docker) -> None:
    lines = docker("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "busybox").lines
    assert len(lines) == 1
    assert lines[0].startswith("test ")


def test_save_and_load(docker: Docker, tagged: str, tmp_path: Path) -> None:
    docker("save", "-o", str(tmp_path / "image.tar"), tagged)
    with tarfile.open(tmp_path / "image.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert manifest[0]["RepoTags"] == [tagged]
    docker("rmi", tagged)
    assert f"Loaded image: {tagged}" in docker.ok("load", "-i", str(tmp_path / "image.tar"))
    docker("image", "inspect", tagged)


def test_load_of_what_is_no_archive(docker: Docker) -> None:
    assert docker("load", stdin=b"this is no archive" * 100, code=None).all


def test_import(docker: Docker) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    made = docker.ok("import", "--change", 'CMD ["/hello"]', "-m", "why", "-", "imported:1", stdin=packed.getvalue())  # type: ignore[arg-type]
    assert made.startswith("sha256:")
    assert docker.field("imported:1", "{{.Config.Cmd}}", "image") == "[/hello]"


def test_image_prune(docker: Docker) -> None:
    assert "Total reclaimed space: 0B" in docker.ok("image", "prune", "-f")


def test_pull_of_a_registry_that_is_not_there(docker: Docker) -> None:
    done = docker("pull", "127.0.0.1:9/nothing:1", code=1)
    assert re.search("(?i)refused|connect", done.err)


def test_login_to_a_registry_that_is_not_there(docker: Docker) -> None:
    done = docker("login", "-u", "me", "--password-stdin", "127.0.0.1:9", stdin="secret", code=1)
    assert re.search("(?i)refused|connect", done.err)
    assert "secret" not in done.all


# -- build ------------------------------------------------------------------------------------


def build(docker: Docker, folder: Path, text: str, *flags: str, code: int | None = 0) -> str:
    (folder / "Dockerfile").write_text(text)
    return docker("build", *flags, str(folder), code=code).all


def test_build(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the context")
    out = build(
        docker,
        tmp_path,
        "FROM busybox\nENV A=b\nCOPY file /copied\nRUN echo made > /made\nWORKDIR /work\nLABEL l=m\nUSER 1000\n"
        'EXPOSE 80\nENTRYPOINT ["cat"]\nCMD ["/copied", "/made"]\n',
        "-t",
        "built:1",
    )
    assert "Successfully tagged built:1" in out
    assert docker.ok("run", "--rm", "built:1") == "of the contextmade"
    (shown,) = json.loads(docker.ok("image", "inspect", "built:1"))
    assert shown["Config"]["WorkingDir"] == "/work"
    assert shown["Config"]["Labels"] == {"l": "m"}
    assert shown["Config"]["User"] == "1000"
    assert "80/tcp" in shown["Config"]["ExposedPorts"]


def test_build_with_a_dockerfile_from_elsewhere(docker: Docker, tmp_path: Path) -> None:
    context, elsewhere = tmp_path / "context", tmp_path / "elsewhere"
    context.mkdir()
    (context / "file").write_text("in the context\n")
    elsewhere.write_text("FROM busybox\nCOPY . /c/\nRUN cat /c/file && ls -A /c\n")
    said = docker.ok("build", "--no-cache", "-f", str(elsewhere), str(context))
    assert "in the context\nfile\n" in said


def test_build_uses_its_cache(docker: Docker, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN echo once > /once\n"
    build(docker, tmp_path, text, "-t", "built:1")
    assert "Using cache" in build(docker, tmp_path, text, "-t", "built:2")
    assert docker.field("built:1", "{{.Id}}", "image") == docker.field("built:2", "{{.Id}}", "image")


def test_build_in_stages_with_arguments(docker: Docker, tmp_path: Path) -> None:
    text = (
        "ARG BASE=none\nFROM ${BASE} AS one\nARG WHAT\nRUN echo $WHAT > /what\n"
        "FROM busybox\nCOPY --from=one /what /what\n"
    )
    build(docker, tmp_path, text, "-t", "built:1", "--build-arg", "BASE=busybox", "--build-arg", "WHAT=this")
    assert docker.ok("run", "--rm", "built:1", "cat", "/what") == "this"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM busybox\nRUN exit 3\n", "returned a non-zero code: 3"),
        ("FROM busybox\nCOPY absent /x\n", "(?i)no such file|not found|failed"),
        ("FROM busybox\nNONSENSE x\n", "(?i)unknown instruction"),
        ("", "(?i)cannot be empty|empty"),
    ],
    ids=str,
)
def test_bad_builds(docker: Docker, tmp_path: Path, text: str, message: str) -> None:
    assert re.search(message, build(docker, tmp_path, text, code=None))


def test_dockerignore(docker: Docker, tmp_path: Path) -> None:
    for name in ("keep", "drop"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("drop\n")
    build(docker, tmp_path, "FROM busybox\nCOPY . /c/\n", "-t", "built:1")
    assert "drop" not in docker.ok("run", "--rm", "built:1", "ls", "/c").split()


# -- system -----------------------------------------------------------------------------------


def test_version(docker: Docker) -> None:
    shown = json.loads(docker.ok("version", "--format", "{{json .}}"))
    assert shown["Server"]["Os"] == "linux"
    assert shown["Server"]["Arch"] == "amd64"
    assert re.fullmatch(r"1\.\d\d", shown["Server"]["ApiVersion"])


def test_info(docker: Docker, sleeper: str) -> None:
    shown = json.loads(docker.ok("info", "--format", "{{json .}}"))
    assert shown["ContainersRunning"] == 1
    assert shown["OSType"] == "linux"
    assert shown["NCPU"] > 0
    assert shown["Swarm"]["LocalNodeState"] == "inactive"
    text = docker.ok("info")
    assert "Containers: 1" in text
    assert "Swarm: inactive" in text


def test_df(docker: Docker, sleeper: str) -> None:
    lines = docker("system", "df").lines
    assert [line.split("  ")[0] for line in lines[1:]] == ["Images", "Containers", "Local Volumes", "Build Cache"]
    assert sleeper in docker.ok("system", "df", "-v")


def test_events(docker: Docker) -> None:
    begun = int(time.time())
    docker("run", "--rm", "--name", "short", "busybox", "true")
    docker.until(lambda: not docker.ok("ps", "-aq"), "the removal")
    rows = docker.ok(
        "events",
        "--since",
        str(begun),
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        "container=short",
        "--format",
        "{{.Type}} {{.Action}}",
    ).splitlines()
    kinds = [row for row in rows if row.startswith("container")]
    assert [kind for kind in kinds if "attach" not in kind] == [
        f"container {action}" for action in ("create", "start", "die", "destroy")
    ]


@pytest.mark.parametrize(
    ("flags", "actions"),
    [
        (["--filter", "event=die"], {"die"}),
        (["--filter", "type=volume"], {"create", "mount", "unmount", "destroy"}),
        (["--filter", "type=network"], {"connect", "disconnect"}),
        (["--filter", "event=create", "--filter", "type=container"], {"create"}),
    ],
    ids=str,
)
def test_event_filters(docker: Docker, flags: list[str], actions: set[str]) -> None:
    time.sleep(1)
    begun = int(time.time())
    docker("run", "--rm", "--name", "short", "-v", "/v", "busybox", "true")
    docker.until(lambda: not docker.ok("ps", "-aq"), "the removal")
    rows = docker.ok(
        "events", "--since", str(begun), "--until", str(int(time.time()) + 1), *flags, "--format", "{{.Action}}"
    )
    assert set(rows.split()) == actions


def test_system_prune(docker: Docker, sleeper: str) -> None:
    docker("create", "--name", "ended", "busybox")
    docker("network", "create", "unused")
    done = docker.ok("system", "prune", "-f")
    assert "Deleted Containers:" in done
    assert "unused" in done
    assert "Total reclaimed space" in done
    assert docker.ok("ps", "-aq", "--no-trunc") == docker.field(sleeper, "{{.Id}}")


@pytest.mark.parametrize("args", [["node", "ls"], ["service", "ls"], ["secret", "ls"], ["stack", "ls"]], ids=str)
def test_no_swarm(docker: Docker, args: list[str]) -> None:
    assert "This node is not a swarm manager" in docker(*args, code=1).err


def test_no_plugins(docker: Docker) -> None:
    assert len(docker("plugin", "ls").lines) == 1

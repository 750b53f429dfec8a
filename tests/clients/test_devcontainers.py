"""The Dev Containers CLI, which drives docker's command line. From npm, unpacked and never installed."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from tests.clients.conftest import Docker
from tests.clients.newer import CACHE

REGISTRY = "https://registry.npmjs.org"
# It has no dependencies; the digest is the registry's (`npm view NAME@VERSION dist.integrity`).
DEVCONTAINER = (
    "@devcontainers/cli",
    "0.80.0",
    "devcontainer.js",
    "sha512-w2EaxgjyeVGyzfA/KUEZBhyXqu/5PyWNXcnrXsZOBrt3aN2zyGiHrXoG54TF6K0b5DSCF01Rt5fnIyrCeFzFKw==",
)


def fetched(name: str, version: str, program: str, integrity: str) -> Path:
    """A program of an npm package, kept in the cache of the tests."""
    folder = CACHE / "npm" / f"{name.replace('/', '-')}-{version}"
    if not folder.exists():
        base = name.rpartition("/")[2]
        with urllib.request.urlopen(f"{REGISTRY}/{name}/-/{base}-{version}.tgz", timeout=60) as answer:
            data = answer.read()
        assert integrity == "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
        unpacked = folder.with_name(f"{folder.name}.part")
        unpacked.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-xz", "-C", unpacked], input=data, check=True)
        unpacked.rename(folder)
    return folder / "package" / program


class Tool:
    """The program, in a folder of a project."""

    def __init__(self, docker: Docker, folder: Path) -> None:
        self._words, self._folder = ["node", str(fetched(*DEVCONTAINER))], folder
        self._environment = {**docker.environment, "HOME": str(folder)}

    def __call__(self, *args: str, code: int = 0) -> str:
        done = subprocess.run(
            [*self._words, *args],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".devcontainer").mkdir(parents=True)
    (folder / "file").write_text("from the host\n")
    return folder


@pytest.mark.parametrize("built", [False, True], ids=["image", "dockerfile"])
def test_a_dev_container(docker: Docker, project: Path, built: bool) -> None:
    settings = {
        **({"build": {"dockerfile": "Dockerfile"}} if built else {"image": "busybox"}),
        "containerEnv": {"WHO": "me"},
        "postCreateCommand": "echo made > /made",
        "mounts": ["type=volume,source=devcache,target=/cache"],
        "runArgs": ["--hostname=dev", "--cap-add=SYS_PTRACE"],
        "overrideCommand": True,
    }
    (project / ".devcontainer" / "devcontainer.json").write_text(json.dumps(settings))
    (project / ".devcontainer" / "Dockerfile").write_text("FROM busybox\nRUN echo built > /built\n")
    tool = Tool(docker, project)
    words = ("--workspace-folder", str(project))
    made = json.loads(tool("up", *words).splitlines()[-1])
    try:
        assert made["outcome"] == "success"
        folder = made["remoteWorkspaceFolder"]
        script = f"cat {folder}/file /made; echo $WHO; hostname; echo from the container > {folder}/back"
        assert tool("exec", *words, "sh", "-c", script) == "from the host\nmade\nme\ndev\n"
        assert (project / "back").read_text() == "from the container\n"
        if built:
            assert tool("exec", *words, "cat", "/built") == "built\n"
        # The second time it finds the one that runs.
        assert json.loads(tool("up", *words).splitlines()[-1])["containerId"] == made["containerId"]
        tool("exec", *words, "sh", "-c", "exit 7", code=7)
    finally:
        docker("rm", "-f", made["containerId"])
        docker("volume", "rm", "devcache")

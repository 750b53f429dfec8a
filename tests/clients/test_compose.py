"""Docker Compose v2, unpacked from a newer Debian suite and never installed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.conftest import Docker, Result
from tests.clients.newer import unpack
from tests.living import busybox_archive

PROJECT = """
name: proj
services:
  web:
    image: busybox
    command: httpd -f -h /var/www
    ports: ["127.0.0.1:38480:80"]
    networks: [front, back]
    environment: {WHO: "${WHO:-nobody}"}
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/index.html"]
      interval: 200ms
      retries: 50
    configs:
      - source: conf
        target: /conf
  worker:
    image: busybox
    command: sh -c "wget -q -O - http://web/index.html && echo done && sleep 1000"
    depends_on:
      web: {condition: service_healthy}
    networks: [back]
    volumes: ["data:/data", "./host:/host:ro"]
    labels: {kind: worker}
    deploy: {replicas: 2}
  once:
    image: busybox
    command: "true"
    profiles: [extra]
  built:
    build: ./built
    networks: [back]
    stop_grace_period: 0s
networks:
  front: {}
  back: {driver: bridge, internal: true}
volumes:
  data: {labels: {keep: "no"}}
configs:
  conf: {content: configured}
"""


@pytest.fixture(scope="session")
def program() -> Path:
    """The compose binary."""
    return unpack("docker-compose", "usr/libexec/docker/cli-plugins/docker-compose")


class Compose:
    """One project's compose."""

    def __init__(self, program: Path, docker: Docker, folder: Path) -> None:
        self._program, self._docker, self._folder = program, docker, folder

    def __call__(self, *args: str, code: int | None = 0, **environment: str) -> Result:
        """Run `docker-compose ARGS`."""
        done = subprocess.run(
            [self._program, "--ansi", "never", "--progress", "plain", *args],
            cwd=self._folder,
            env={**self._docker.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"compose {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def compose(program: Path, docker: Docker, tmp_path: Path) -> Iterator[Compose]:
    """A project that is taken down afterwards."""
    (tmp_path / "compose.yaml").write_text(PROJECT)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("of the host")
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "Dockerfile").write_text('FROM busybox\nCMD ["sleep", "1000"]\n')
    made = Compose(program, docker, tmp_path)
    yield made
    made("down", "-v", "-t", "0", "--rmi", "local", "--remove-orphans")


def test_up_and_down(compose: Compose, docker: Docker) -> None:
    compose("up", "-d", "--build", WHO="me")
    rows = [json.loads(line) for line in compose("ps", "--format", "json").lines]
    assert {row["Service"] for row in rows} == {"web", "worker", "built"}
    assert len(rows) == 4
    assert next(row for row in rows if row["Service"] == "web")["Health"] == "healthy"
    docker.until(lambda: compose("logs", "worker").out.count("done") == 2, "the workers' output")
    assert "hello from the image" in compose("logs", "--no-color", "worker").out
    assert compose("exec", "-T", "web", "sh", "-c", "echo $WHO; cat /conf").out == "me\nconfigured"
    assert compose("exec", "-T", "--index", "2", "worker", "cat", "/host/file").out == "of the host"
    assert compose("port", "web", "80").out.strip() == "127.0.0.1:38480"
    assert "sleep 1000" in compose("top", "built").out
    compose("down", "-v", "-t", "0")
    assert docker.ok("ps", "-aq") == ""
    assert docker.ok("network", "ls", "-q", "--filter", "type=custom") == ""
    assert docker.ok("volume", "ls", "-q") == ""


def test_changes_are_applied(compose: Compose, docker: Docker) -> None:
    compose("up", "-d", "--build")
    before = docker.ok("ps", "-q", "--filter", "label=com.docker.compose.service=web")
    worker = set(docker.ok("ps", "-q", "--filter", "label=kind=worker").split())
    compose("up", "-d", WHO="another")
    assert docker.ok("ps", "-q", "--filter", "label=com.docker.compose.service=web") != before
    compose("up", "-d", "--scale", "worker=3", "--no-recreate")
    assert len(set(docker.ok("ps", "-q", "--filter", "label=kind=worker").split())) == 3
    assert worker


def test_verbs(compose: Compose) -> None:
    compose("create", "--build")
    compose("start", "web")
    compose("pause", "web")
    compose("unpause", "web")
    compose("restart", "-t", "0", "web")
    compose("stop", "-t", "0", "web")
    compose("up", "-d", "--wait", "web")
    assert "busybox" in compose("images").out
    compose("kill", "web")
    compose("rm", "-f", "web")


def test_one_off(compose: Compose) -> None:
    assert compose("run", "--rm", "-T", "--no-deps", "web", "echo", "one-off").out == "one-off\n"
    assert compose("run", "--rm", "-T", "--no-deps", "web", "sh", "-c", "exit 6", code=6).code == 6


def test_a_service_that_fails(compose: Compose) -> None:
    done = compose("up", "--exit-code-from", "once", "--no-deps", "once")
    assert "exited with code 0" in done.all


def test_copy_and_events(compose: Compose, tmp_path: Path) -> None:
    compose("up", "-d", "--no-deps", "web")
    (tmp_path / "sent").write_text("sent")
    compose("cp", str(tmp_path / "sent"), "web:/tmp/sent")
    assert compose("exec", "-T", "web", "cat", "/tmp/sent").out == "sent"


def test_a_bad_file(compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: busybox, networks: [absent]}}")
    assert "absent" in compose("up", "-d", code=None).err
    (tmp_path / "compose.yaml").write_text(PROJECT)


@pytest.mark.beyond
def test_volumes_configs_and_secrets_of_a_vm(compose: Compose, docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        """
services:
  walled:
    image: busybox
    isolation: vm
    command: sleep 1000
    volumes: ["data:/data", "./host:/host:ro", {type: tmpfs, target: /memory}]
    configs:
      - source: conf
        target: /conf
    secrets: [hidden]
volumes:
  data: {}
configs:
  conf: {content: configured}
secrets:
  hidden: {environment: HIDDEN}
"""
    )
    compose("up", "-d", HIDDEN="not said")
    script = (
        "cat /host/file /conf /run/secrets/hidden; touch /data/x; "
        "touch /host/x 2>/dev/null || echo no; grep -c ' /memory ' /proc/mounts"
    )
    assert compose("exec", "-T", "walled", "sh", "-c", script).out == "of the hostconfigurednot saidno\n1\n"
    (tmp_path / "host" / "file").write_text("changed")
    assert compose("exec", "-T", "walled", "cat", "/host/file").out == "changed"
    compose("down", "-t", "0")
    compose("up", "-d", HIDDEN="not said")
    assert compose("exec", "-T", "walled", "ls", "/data").out == "x\n"


@pytest.mark.beyond
def test_a_service_for_another_architecture(compose: Compose, docker: Docker, tmp_path: Path) -> None:
    docker("load", "--input", str(busybox_archive(tmp_path / "image.tar", "foreign:latest", architecture="arm64")))
    service = {"image": "foreign", "platform": "linux/arm64", "isolation": "vm", "command": "uname -m"}
    (tmp_path / "compose.yaml").write_text(json.dumps({"name": "proj", "services": {"one": service}}))
    assert "aarch64" in compose("up", "--no-color").out
    flags = ("--platform", "linux/arm64", "--isolation", "vm")
    assert docker.ok("run", "--rm", *flags, "foreign", "uname", "-m") == "aarch64"
    docker("rmi", "-f", "foreign")

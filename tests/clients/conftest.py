"""The docker command line, pointed at the engine under test."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clients.engines import ISOLATION, PEER, Engine, start
from tests.clients.newer import docker_folder
from tests.living import busybox_archive


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shared_kernel: what a wall with a kernel of its own refuses by name")
    config.addinivalue_line(
        "markers", "beyond: what dockerd cannot do: with VMs, on a host without all capabilities, or by its own defects"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A dockerd is not asked for what it cannot do, nor a VM for what it refuses."""
    marker = "beyond" if PEER == "dockerd" else "shared_kernel" if ISOLATION == "vm" else ""
    if marker:
        left_out = [item for item in items if item.get_closest_marker(marker)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine."""
    assert os.geteuid() == 0, "clients are tried against a real engine: run as root"
    made = start()
    try:
        yield made
    finally:
        made.close()


def shared_kernel(*values: object) -> object:
    """A case that a VM refuses, or where its own kernel shows."""
    return pytest.param(*values, marks=pytest.mark.shared_kernel)


class Result:
    """What a command printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.splitlines()

    @property
    def all(self) -> str:
        """Both streams."""
        return self.out + self.err


class Docker:
    """The docker command line with a configuration of its own."""

    def __init__(self, host: str, config: Path) -> None:
        self.host = host
        self.environment = {
            "PATH": f"{docker_folder()}:{os.environ['PATH']}",
            "HOME": str(config),
            "DOCKER_HOST": host,
            "DOCKER_CONFIG": str(config),
            "DOCKER_CLI_HINTS": "false",
            "DOCKER_BUILDKIT": "0",
        }

    def __call__(
        self, *args: str, code: int | None = 0, stdin: str | bytes | None = None, timeout: float = 60
    ) -> Result:
        """Run `docker ARGS`; its exit status must be `code` (None: any)."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        extra = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        done = subprocess.run(
            ["docker", *args], capture_output=True, env=self.environment, timeout=timeout, check=False, **extra
        )
        result = Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        if code is not None:
            assert result.code == code, f"docker {' '.join(args)}: {result.code}\n{result.out}{result.err}"
        return result

    def ok(self, *args: str, **options: str) -> str:
        """Stdout of a command that must succeed, without white space around it."""
        return self(*args, **options).out.strip()  # type: ignore[arg-type]

    def field(self, name: str, template: str, kind: str = "container") -> str:
        """One value of an inspect answer."""
        return self.ok("inspect", "--type", kind, "--format", template, name)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Wait for a condition that the engine brings about in its own time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
            time.sleep(0.05)

    def begin(self, *args: str) -> subprocess.Popen[bytes]:
        """Run `docker ARGS` beside the test."""
        return subprocess.Popen(
            ["docker", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )


@pytest.fixture(scope="session")
def cli(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Docker:
    """The command line, with the image `busybox` loaded."""
    folder = tmp_path_factory.mktemp("docker")
    made = Docker(engine.host, folder)
    loaded = made.ok("load", "--input", str(busybox_archive(folder / "busybox.tar")))
    assert re.search(r"Loaded image: busybox:latest", loaded)
    return made


@pytest.fixture
def docker(cli: Docker) -> Iterator[Docker]:
    """The command line; what a test leaves behind is removed."""
    yield cli
    if ids := cli.ok("ps", "-aq").split():
        cli("rm", "-fv", *ids)
    if names := cli.ok("volume", "ls", "-q").split():
        cli("volume", "rm", "-f", *names)
    if names := cli.ok("network", "ls", "-q", "--filter", "type=custom").split():
        cli("network", "rm", *names)


@pytest.fixture
def sleeper(docker: Docker) -> str:
    """A running container."""
    docker("run", "-d", "--name", "sleeper", "--label", "who=me", "busybox", "sleep", "1000")
    return "sleeper"

"""Flags of `bastide build` that a Dockerfile alone does not show, each by what it changes."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.building import read
from tests.living import CLI, Daemon, busybox_archive
from tests.registry import Registry


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    return made


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def build(daemon: Daemon, place: Path, dockerfile: str, *flags: str) -> str:
    """Build in a folder; gives the image's id."""
    (place / "Dockerfile").write_text(dockerfile)
    return daemon.ok("build", "--quiet", *flags, str(place))


def test_pull_asks_the_registry_again(daemon: Daemon, place: Path, registry: Registry, tmp_path: Path) -> None:
    reference = registry.fill(busybox_archive(tmp_path / "old.tar", config={"Labels": {"age": "old"}}), "base:1")
    dockerfile = f"FROM {reference}\nLABEL a=b\n"
    old = build(daemon, place, dockerfile)
    registry.fill(busybox_archive(tmp_path / "new.tar", config={"Labels": {"age": "new"}}), "base:1")
    assert build(daemon, place, dockerfile) == old
    new = build(daemon, place, dockerfile, "--pull")
    labels = [
        json.loads(daemon.ok("inspect", "--type=image", "--format={{json .Config.Labels}}", made))
        for made in (old, new)
    ]
    assert [found["age"] for found in labels] == ["old", "new"]


def test_hosts_are_known_to_steps_and_stay_out_of_the_image(daemon: Daemon, place: Path) -> None:
    made = build(
        daemon,
        place,
        "FROM busybox\nRUN grep depot /etc/hosts > /found\n",
        "--network=none",
        "--add-host=depot:192.0.2.7",
    )
    assert read(daemon, made, "/found").split() == ["192.0.2.7", "depot"]
    hosts = daemon.ok("run", "--rm", "--network=none", made, "cat", "/etc/hosts")
    assert "depot" not in hosts


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_the_network_of_steps(daemon: Daemon, place: Path, isolation: str) -> None:
    dockerfile = "FROM busybox\nRUN ls /sys/class/net > /links\n"
    flags = ["--no-cache", f"--isolation={isolation}"]
    made = {
        network: build(daemon, place, dockerfile, *flags, f"--network={network}") for network in ("none", "default")
    }
    assert read(daemon, made["none"], "/links").split() == ["lo"]
    # A VM has places for further networks.
    assert {"eth0", "lo"} <= set(read(daemon, made["default"], "/links").split())


def test_the_hosts_network(daemon: Daemon, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        build(daemon, place, f"FROM busybox\nRUN nc -w 5 127.0.0.1 {port} -e true\n", "--no-cache", "--network=host")
        refused = daemon.cli("build", "--no-cache", "--network=none", str(place))
    assert refused.returncode == 1


def test_progress(daemon: Daemon, place: Path) -> None:
    (place / "Dockerfile").write_text("FROM busybox\nRUN echo said\n")
    for how in ("plain", "auto", "tty"):
        done = daemon.cli("build", "--no-cache", "--network=none", f"--progress={how}", str(place))
        assert done.returncode == 0, done.stderr
        assert "said" in done.stdout
    wrong = daemon.cli("build", "--progress=loud", str(place))
    assert wrong.returncode == 125
    assert "--progress loud: one of auto, plain, tty" in wrong.stderr


def test_squash_label_target_and_arguments_at_once(daemon: Daemon, place: Path) -> None:
    dockerfile = (
        "ARG BASE=none\nFROM ${BASE} AS first\nARG WORD\nRUN echo $WORD > /word && echo x > /gone\nRUN rm /gone\n"
        "FROM first\nRUN false\n"
    )
    flags = ["--network=none", "--squash", "--target=first", "--label=made=here", "--build-arg=BASE=busybox"]
    made = build(daemon, place, dockerfile, *flags, "--build-arg=WORD=told")
    shown = json.loads(daemon.ok("inspect", "--type=image", made))[0]
    assert read(daemon, made, "/word") == "told"
    assert shown["Config"]["Labels"] == {"made": "here"}
    assert len(shown["RootFS"]["Layers"]) == 2


def test_cache_from_by_the_command_line(daemon: Daemon, place: Path, registry: Registry) -> None:
    dockerfile = "FROM busybox\nRUN head -c 16 /dev/urandom | od -x > /r\n"
    reference = f"{registry.host}/warm:1"
    first = build(daemon, place, dockerfile, "--network=none", f"--tag={reference}")
    daemon.ok("push", "-q", reference)
    daemon.ok("rmi", reference)
    daemon.ok("builder", "prune", "-af")
    daemon.ok("pull", "-q", reference)
    again = build(daemon, place, dockerfile, "--network=none", f"--cache-from={reference}")
    assert read(daemon, again, "/r") == read(daemon, first, "/r")


def test_every_mount_behind_a_kernel_of_its_own(daemon: Daemon, place: Path, tmp_path: Path) -> None:
    (place / "given").write_text("bound\n")
    (tmp_path / "token").write_text("secret\n")
    dockerfile = (
        "FROM busybox\n"
        "RUN --mount=type=bind,source=given,target=/given cat /given > /bound\n"
        "RUN --mount=type=cache,id=walled,target=/c echo x >> /c/n && wc -l < /c/n > /count\n"
        "RUN --mount=type=tmpfs,target=/t echo t > /t/t && mount | grep ' /t ' | cut -d' ' -f5 > /kind\n"
        "RUN --mount=type=secret,id=token,required=true wc -c < /run/secrets/token > /size\n"
    )
    flags = ["--network=none", "--isolation=vm", f"--secret=id=token,src={tmp_path / 'token'}"]
    made = build(daemon, place, dockerfile, *flags)
    found = [read(daemon, made, path) for path in ("/bound", "/count", "/kind", "/size")]
    assert found == ["bound", "1", "tmpfs", "7"]
    assert daemon.cli("run", "--rm", "--network=none", made, "ls", "/run/secrets/token").returncode
    counted = dockerfile.replace("echo x", "echo y")
    assert read(daemon, build(daemon, place, counted, *flags), "/count") == "2"


def test_the_callers_agent(daemon: Daemon, place: Path, tmp_path: Path) -> None:
    """`--ssh default` lends what SSH_AUTH_SOCK names to the steps that ask for it."""
    path = tmp_path / "agent"
    (place / "Dockerfile").write_text(
        'FROM busybox\nRUN --mount=type=ssh test -S "$SSH_AUTH_SOCK"\nRUN test -z "$SSH_AUTH_SOCK"\n'
    )
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        agent.listen(1)
        words = [*CLI, "build", "--network=none", "--ssh=default", str(place)]
        environment = daemon.environment | {"SSH_AUTH_SOCK": str(path)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""What instructions make of a configuration."""

from __future__ import annotations

import pytest

from bastide.engine.build.state import State, apply, changes, document, from_image, shown
from bastide.images.dockerfile.stages import read_trigger
from bastide.model.container import Config, HealthConfig
from bastide.model.errors import InvalidArgument
from bastide.model.image import Descriptor, Image, Platform

NOTHING = Descriptor(media_type="", digest="", size=0)


def after(*lines: str, config: Config | None = None) -> Config:
    state = State(platform=Platform(), chain="", config=config or Config())
    for line in lines:
        state, _ = apply(state, read_trigger(line, 1), state.expander("\\"))
    return state.config


def test_env_replaces_in_place_and_sees_what_was() -> None:
    config = after("ENV A=1 B=2", "ENV A=$B C=$A")
    assert config.env == ["A=2", "B=2", "C=1"]


def test_entrypoint_drops_a_command_that_was_not_set_here() -> None:
    inherited = Config(cmd=["base"])
    assert after('ENTRYPOINT ["x"]', config=inherited).cmd is None
    assert after('CMD ["mine"]', 'ENTRYPOINT ["x"]', config=inherited).cmd == ["mine"]


def test_shell_form_takes_the_shell_of_the_moment() -> None:
    assert after('SHELL ["/bin/x", "-c"]', "CMD a b").cmd == ["/bin/x", "-c", "a b"]
    assert after("CMD a b", 'SHELL ["/bin/x"]').cmd == ["/bin/sh", "-c", "a b"]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", ["80/tcp"]),
        ("80/UDP", ["80/udp"]),
        ("1-3/sctp", ["1/sctp", "2/sctp", "3/sctp"]),
        ("8080:80", ["80/tcp"]),
        ("1 2", ["1/tcp", "2/tcp"]),
    ],
)
def test_ports(text: str, ports: list[str]) -> None:
    assert sorted(after(f"EXPOSE {text}").exposed_ports or {}) == ports


@pytest.mark.parametrize("text", ["0", "65536", "3-1", "x", "80/icmp", "-1", "1/tcp/udp"])
def test_bad_ports(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid containerPort"):
        after(f"EXPOSE {text}")


def test_workdir() -> None:
    assert after("WORKDIR /a", "WORKDIR b/../c", "WORKDIR ..").working_dir == "/a"
    assert after("WORKDIR relative").working_dir == "/relative"
    assert after("WORKDIR ../../..").working_dir == "/"


def test_an_image_without_a_path_gets_one_and_its_triggers_are_spent() -> None:
    image = Image(
        id="sha256:" + "1" * 64,
        manifest=NOTHING,
        target=NOTHING,
        layers=[NOTHING],
        diff_ids=["d"],
        platform=Platform(),
        created="",
        config=Config(env=["A=1"], on_build=["RUN x"], hostname="h", image="i"),
    )
    config = from_image(image, "").config
    assert config.env is not None
    assert config.env[0] == "A=1"
    assert config.env[1].startswith("PATH=/usr/local/sbin")
    assert (config.on_build, config.hostname, config.image) == (None, "", "")


def test_document_says_only_what_there_is() -> None:
    state = State(platform=Platform(architecture="arm", variant="v7"), chain="", created="now")
    assert document(state) == {
        "architecture": "arm",
        "os": "linux",
        "variant": "v7",
        "created": "now",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }


def test_health_check() -> None:
    config = after("HEALTHCHECK --interval=1m30s --retries=2 CMD exit 0")
    assert config.healthcheck == HealthConfig(test=["CMD-SHELL", "exit 0"], interval=90 * 10**9, retries=2)


def test_changes_of_a_commit() -> None:
    made = changes(Config(env=["A=1"]), ["ENV B=2", "CMD run it", "", "EXPOSE 80", "label x=y"])
    assert (made.env, made.cmd, made.exposed_ports) == (["A=1", "B=2"], ["/bin/sh", "-c", "run it"], {"80/tcp": {}})
    assert made.labels == {"x": "y"}
    for line in ("RUN true", "COPY a b", "FROM x", "NOPE", "SHELL ['a']"):
        with pytest.raises(InvalidArgument, match="not a valid change command"):
            changes(Config(), [line])


def test_words_in_history() -> None:
    assert shown(["a b", 'q"']) == '["a b" "q\\""]'

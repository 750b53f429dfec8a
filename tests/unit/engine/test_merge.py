"""The user's configuration over the image's."""

from __future__ import annotations

import pytest

from bastide.engine.merge import command_line, merge
from bastide.model.container import Config, HealthConfig
from bastide.model.errors import InvalidArgument

IMAGE = Config(entrypoint=["/entry"], cmd=["default"], env=["PATH=/image", "A=1"], user="web", working_dir="/srv")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (Config(), ["/entry", "default"]),
        (Config(cmd=["own"]), ["/entry", "own"]),
        (Config(entrypoint=["/other"]), ["/other"]),
        (Config(entrypoint=["/other"], cmd=["x"]), ["/other", "x"]),
        (Config(entrypoint=[""], cmd=["sh"]), ["sh"]),
        (Config(cmd="sh"), ["/entry", "sh"]),
    ],
)
def test_entrypoint_and_command(user: Config, expected: list[str]) -> None:
    assert command_line(merge(user, IMAGE)) == expected


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge(Config(), Config())


def test_environment_keeps_the_images_order_and_the_users_values() -> None:
    merged = merge(Config(env=["A=2", "B=3"]), IMAGE)
    assert merged.env == ["PATH=/image", "A=2", "B=3"]


@pytest.mark.parametrize("entry", ["=value", "A=\0"])
def test_bad_environment_is_refused(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        merge(Config(env=[entry]), IMAGE)


def test_user_and_directory_come_from_the_image_unless_given() -> None:
    assert merge(Config(), IMAGE).user == "web"
    assert merge(Config(user="0", working_dir="/"), IMAGE).working_dir == "/"


def test_health_check_is_merged_field_by_field() -> None:
    image = Config(cmd=["x"], healthcheck=HealthConfig(test=["CMD", "a"], interval=5, retries=2))
    merged = merge(Config(healthcheck=HealthConfig(retries=9)), image)
    assert merged.healthcheck == HealthConfig(test=["CMD", "a"], interval=5, retries=9)

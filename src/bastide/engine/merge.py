"""What a container will be: the user's configuration over the image's, as Docker merges them."""

from __future__ import annotations

import msgspec

from bastide.model.container import Config, HealthConfig
from bastide.model.errors import InvalidArgument

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def words(value: list[str] | str | None) -> list[str] | None:
    """`Cmd` or `Entrypoint` as a list; the API also takes one string."""
    return [value] if isinstance(value, str) else value


def _environment(user: list[str] | None, image: list[str] | None) -> list[str]:
    """The image's variables that the user does not set, then the user's."""
    mine = user or []
    names = {entry.split("=", 1)[0] for entry in mine}
    merged = [entry for entry in image or [] if entry.split("=", 1)[0] not in names] + mine
    for entry in mine:
        if "\0" in entry or not entry.split("=", 1)[0]:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    return merged


def _health(user: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """Field by field; an empty test inherits the image's."""
    if user is None or image is None:
        return user or image
    return HealthConfig(
        test=user.test or image.test,
        interval=user.interval or image.interval,
        timeout=user.timeout or image.timeout,
        retries=user.retries or image.retries,
        start_period=user.start_period or image.start_period,
        start_interval=user.start_interval or image.start_interval,
    )


def merge(user: Config, image: Config) -> Config:
    """The container's configuration. Raises InvalidArgument when there is nothing to run.

    An entrypoint that the user sets drops the image's command; `[""]` clears the image's entrypoint.
    """
    entrypoint, command = words(user.entrypoint), words(user.cmd)
    if entrypoint is None:
        entrypoint = words(image.entrypoint)
        if command is None or not command:
            command = words(image.cmd)
    elif entrypoint == [""]:
        entrypoint = None
    if not (entrypoint or command):
        raise InvalidArgument("no command specified")
    return msgspec.structs.replace(
        user,
        entrypoint=entrypoint,
        cmd=command,
        env=_environment(user.env, image.env),
        user=user.user or image.user,
        working_dir=user.working_dir or image.working_dir,
        exposed_ports=(image.exposed_ports or {}) | (user.exposed_ports or {}) or None,
        volumes=(image.volumes or {}) | (user.volumes or {}) or None,
        labels=(image.labels or {}) | (user.labels or {}),
        stop_signal=user.stop_signal or image.stop_signal,
        healthcheck=_health(user.healthcheck, image.healthcheck),
        shell=user.shell or image.shell,
        on_build=user.on_build or image.on_build,
    )


def command_line(config: Config) -> list[str]:
    """The words that are run: entrypoint, then command."""
    return (words(config.entrypoint) or []) + (words(config.cmd) or [])

"""What a build is asked for."""

from __future__ import annotations

import re

import msgspec

from bastide.images.manifest import normal, parse_platform
from bastide.model.container import Ulimit
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.image import Platform

DEFAULT_NAME = "Dockerfile"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of `POST /build` (Docker Engine API 1.47, ImageBuild) and what goes beyond them.

    `secrets` are the values of `RUN --mount=type=secret` by their ids, `agents` the sockets of SSH agents
    by theirs; neither is ever stored, logged or told.
    """

    dockerfile: str = DEFAULT_NAME
    tags: list[str] = []
    remote: str = ""
    quiet: bool = False
    no_cache: bool = False
    cache_from: list[str] = []
    pull: bool = False
    keep_containers: bool = False
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cpu_period: int = 0
    cpu_quota: int = 0
    shm_size: int = 0
    ulimits: list[Ulimit] = []
    cgroup_parent: str = ""
    security_options: list[str] = []
    extra_hosts: list[str] = []
    network: str = ""
    isolation: str = ""
    arguments: dict[str, str | None] = {}
    labels: dict[str, str] = {}
    squash: bool = False
    platform: str = ""
    target: str = ""
    compression: str = "gzip"
    credentials: dict[str, dict[str, str]] = {}
    secrets: dict[str, bytes] = {}
    agents: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Options(tags={self.tags!r}, target={self.target!r})"


def check(options: Options) -> Options:
    """The options themselves. Raises InvalidArgument, and Unsupported for what is refused by name."""
    for entry in options.extra_hosts:
        name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
        if not (separator and _HOST.fullmatch(name) and re.fullmatch(r"[0-9A-Fa-f.:\[\]]+|host-gateway", address)):
            raise InvalidArgument(f'invalid add-host: "{entry}"')
    if options.compression not in ("gzip", "zstd", ""):
        raise Unsupported(f"layers cannot be compressed with {options.compression!r}: choose gzip or zstd")
    for name in options.labels:
        if not name.strip():
            raise InvalidArgument("label names must not be empty")
    return options


def platforms(options: Options, host: Platform) -> tuple[Platform, dict[str, str]]:
    """The platform to build for, and the variables of the global scope. Raises InvalidArgument."""
    own = normal(host)
    wanted = parse_platform(options.platform, own) if options.platform else own
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", wanted), ("BUILD", own)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    found["TARGETSTAGE"] = options.target or "default"
    return wanted, found

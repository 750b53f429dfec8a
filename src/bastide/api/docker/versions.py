"""What clients of older versions of the API are shown, and what their requests mean.

Source: Docker's "Engine API version history", and how dockerd 26.1 answers (tests/clients/test_versions.py). A version
is a pair, (1, 47). What a single answer adds or lacks stands where the answer is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from bastide.engine.endpoints import PREDEFINED
from bastide.engine.execs import ExecConfig
from bastide.host.cgroups import unified
from bastide.model.container import BindOptions, Config, Container, HostConfig, Mount
from bastide.model.errors import InvalidArgument
from bastide.model.network import EndpointSettings

Version = tuple[int, int]


def config(asked: Version, given: Config) -> Config:
    """The configuration that a creation of that version means."""
    if asked < (1, 44) and given.healthcheck:
        return replace(given, healthcheck=replace(given.healthcheck, start_interval=0))
    return given


def exec_config(asked: Version, given: ExecConfig) -> ExecConfig:
    """What a creation of an exec means."""
    return replace(given, console_size=None) if asked < (1, 42) else given


def warnings(asked: Version, given: Config) -> list[str]:
    """What a creation tells its client about the client's own age."""
    if asked >= (1, 44) and given.mac_address:
        return [
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
        ]
    return []


def host_config(asked: Version, given: HostConfig) -> HostConfig:
    """The same of what depends on the host. Raises InvalidArgument for what would be wrong to leave out."""
    changes: dict[str, Any] = {}
    if asked < (1, 25):
        changes["auto_remove"] = False
    if asked < (1, 40) and not given.ipc_mode:
        changes["ipc_mode"] = "shareable"
    if asked < (1, 41) and not given.cgroupns_mode and not unified():
        changes["cgroupns_mode"] = "host"
    if asked < (1, 42):
        changes["console_size"] = None
        changes["pids_limit"] = given.pids_limit if (given.pids_limit or 0) > 0 else None
    if asked < (1, 43):
        changes["annotations"] = None
    if given.mounts:
        changes["mounts"] = [_mount(asked, mount) for mount in given.mounts]
    return replace(given, **changes) if changes else given


def _mount(asked: Version, given: Mount) -> Mount:
    if asked < (1, 45) and given.volume_options and given.volume_options.subpath:
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    if asked < (1, 42):
        # Nobody looked.
        given = replace(
            given,
            tmpfs_options=given.tmpfs_options if given.type == "tmpfs" else None,
            volume_options=None if given.type == "tmpfs" else given.volume_options,
        )
    if asked >= (1, 44) or given.type != "bind":
        return given
    options = given.bind_options or BindOptions()
    if options.read_only_force_recursive:
        raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    options = replace(
        options,
        non_recursive=options.non_recursive and asked >= (1, 40),
        create_mountpoint=options.create_mountpoint and asked >= (1, 42),
        # What was mounted below a read-only bind stayed writable.
        read_only_non_recursive=given.read_only,
    )
    return given if options == BindOptions() else replace(given, bind_options=options)


def endpoints(asked: Version, given: Mapping[str, EndpointSettings]) -> dict[str, EndpointSettings]:
    """The networks that a creation means: hardware addresses stood beside them. Raises InvalidArgument for too many."""
    if asked >= (1, 44):
        return dict(given)
    if len(given) > 1:
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {', '.join(sorted(given))}"
        )
    return {name: replace(endpoint, mac_address="") for name, endpoint in given.items()}


def inspected(asked: Version, container: Container, shown: dict[str, Any]) -> dict[str, Any]:
    """A container as it is inspected: its short id and its hostname were aliases as any other."""
    if asked >= (1, 45):
        return shown
    own = [container.id[:12], container.config.hostname]
    networks = {
        name: endpoint
        if name in PREDEFINED
        else endpoint | {"Aliases": list(dict.fromkeys([*(endpoint["Aliases"] or []), *own]))}
        for name, endpoint in shown["NetworkSettings"]["Networks"].items()
    }
    return shown | {"NetworkSettings": shown["NetworkSettings"] | {"Networks": networks}}


def info(asked: Version, shown: dict[str, Any]) -> dict[str, Any]:
    """What `GET /info` tells."""
    if asked < (1, 44):
        shown = shown | {
            "Runtimes": {
                name: {key: value for key, value in runtime.items() if key != "status"}
                for name, runtime in shown["Runtimes"].items()
            }
        }
    if asked < (1, 42):
        shown = shown | {"KernelMemory": False}
    if asked < (1, 25):
        names = [option.removeprefix("name=").partition(",")[0] for option in shown["SecurityOptions"]]
        shown = shown | {"ExecutionDriver": "<not supported>", "SecurityOptions": names}
    return shown

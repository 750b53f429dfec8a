"""Images for other architectures than the host's: which walls run them, and what is missing where none does."""

from __future__ import annotations

from bastide import runtime as runtimes
from bastide.engine.backends import Backends
from bastide.model.errors import BastideError, Unsupported
from bastide.model.image import Image, Platform
from bastide.runtime import Emulating, Feature, Runtime

_RUNS_ON = {"amd64": {"amd64", "386"}, "arm64": {"arm64", "arm"}}
"""Architectures (Go's names) that a host of the key's runs without emulation."""


def is_native(image: Platform, host: Platform) -> bool:
    """Whether the host's processor runs the image's programs."""
    return image.architecture in _RUNS_ON.get(host.architecture, {host.architecture})


async def check(image: Image, host: Platform, chosen: Runtime, backends: Backends) -> None:
    """Raise Unsupported, naming what each wall lacks, when the runtime cannot run the image's programs."""
    if is_native(image.platform, host):
        return
    problem = await _problem(chosen, image.platform)
    if not problem:
        return
    ways = [f"isolation {chosen.isolation}: {problem}"]
    seen = {chosen.isolation}
    for name in runtimes.runtimes():
        other = backends.runtime(name)
        if other.isolation in seen or Feature.OTHER_ARCHITECTURES not in other.features:
            continue
        seen.add(other.isolation)
        ways.append(f"isolation {other.isolation}: {await _problem(other, image.platform) or 'works here'}")
    raise Unsupported(f"image {image.id[7:19]} is for {image.platform} and this host is {host}; {'; '.join(ways)}")


async def _problem(runtime: Runtime, platform: Platform) -> str:
    """Why a runtime cannot run programs for a platform, "" when it can."""
    if Feature.OTHER_ARCHITECTURES not in runtime.features or not isinstance(runtime, Emulating):
        return "runs the host's architecture alone"
    try:
        await runtime.emulate(platform.architecture)
    except BastideError as error:
        return error.message
    return ""

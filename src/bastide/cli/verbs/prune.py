"""`prune` of each noun and of everything: what nothing uses goes, after a question."""

from __future__ import annotations

import os

from bastide.cli.grammar import BYTES, SWITCH, Command, Options
from bastide.cli.show import text, units
from bastide.cli.verbs.formats import LONG_FILTERS, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object

_FORCE = ("force", "f", SWITCH, "Do not prompt for confirmation")


def agreed(options: Options, warning: str) -> bool:
    """Whether the user wants it; `--force` says so."""
    if options.on("force"):
        return True
    text.put(f"{warning}\nAre you sure you want to continue? [y/N] ")
    answer = os.read(0, 1024).decode("utf-8", "replace").strip().lower()
    return answer in ("y", "yes")


def _report(title: str, names: list[str], answer: Object, *, total: bool = True) -> int:
    """Print what went; the bytes that came back."""
    if names:
        text.out(f"{title}:")
        text.out("\n".join(names) + "\n")
    reclaimed = int(answer.get("SpaceReclaimed") or 0)
    if total:
        text.out(f"Total reclaimed space: {units.human_size(reclaimed)}")
    return reclaimed


def containers(client: Client, options: Options) -> int:
    """Remove stopped containers."""
    if agreed(options, "WARNING! This will remove all stopped containers."):
        _containers(client, options)
    return 0


def _containers(client: Client, options: Options, *, total: bool = True) -> int:
    answer = client.containers.prune(filters(options.all("filter")))
    return _report("Deleted Containers", answer.get("ContainersDeleted") or [], answer, total=total)


def images(client: Client, options: Options) -> int:
    """Remove images that have no name, or with `--all` all that no container uses."""
    what = "all images without at least one container associated to them"
    if agreed(options, f"WARNING! This will remove {what if options.on('all') else 'all dangling images'}."):
        _images(client, options)
    return 0


def _images(client: Client, options: Options, *, total: bool = True) -> int:
    wanted = filters(options.all("filter"))
    wanted["dangling"] = ["false" if options.on("all") else "true"]
    answer = client.images.prune(wanted)
    lines = [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
        for item in answer.get("ImagesDeleted") or []
    ]
    return _report("Deleted Images", lines, answer, total=total)


def networks(client: Client, options: Options) -> int:
    """Remove networks that no container is connected to."""
    if agreed(options, "WARNING! This will remove all custom networks not used by at least one container."):
        _networks(client, options)
    return 0


def _networks(client: Client, options: Options) -> int:
    answer = client.networks.prune(filters(options.all("filter")))
    return _report("Deleted Networks", answer.get("NetworksDeleted") or [], answer, total=False)


def volumes(client: Client, options: Options) -> int:
    """Remove anonymous volumes that no container uses, with `--all` named ones, too."""
    kind = "all" if options.on("all") else "anonymous"
    if agreed(options, f"WARNING! This will remove {kind} local volumes not used by at least one container."):
        _volumes(client, options)
    return 0


def _volumes(client: Client, options: Options, *, total: bool = True, every: bool | None = None) -> int:
    wanted = filters(options.all("filter"))
    if options.on("all") if every is None else every:
        wanted["all"] = ["true"]
    answer = client.volumes.prune(wanted)
    return _report("Deleted Volumes", answer.get("VolumesDeleted") or [], answer, total=total)


def build_cache(client: Client, options: Options) -> int:
    """Remove build cache that nothing uses."""
    what = "all build cache" if options.on("all") else "all dangling build cache"
    if agreed(options, f"WARNING! This will remove {what}."):
        reclaimed = _build_cache(client, options)
        text.out(f"Total reclaimed space: {units.human_size(reclaimed)}")
    return 0


def _build_cache(client: Client, options: Options) -> int:
    answer = client.images.prune_build_cache(
        {
            "all": options.on("all"),
            "filters": filters(options.all("filter")),
            "keep-storage": options.maybe("keep-storage"),
        }
    )
    return _report("Deleted build cache objects", answer.get("CachesDeleted") or [], answer, total=False)


def everything(client: Client, options: Options) -> int:
    """Remove stopped containers, unused networks, images and build cache; with `--volumes` volumes, too."""
    every, with_volumes = options.on("all"), options.on("volumes")
    lines = ["WARNING! This will remove:", "  - all stopped containers"]
    lines.append("  - all networks not used by at least one container")
    if with_volumes:
        lines.append("  - all anonymous volumes not used by at least one container")
    lines.append(
        "  - all images without at least one container associated to them" if every else "  - all dangling images"
    )
    lines.append("  - all build cache" if every else "  - unused build cache")
    if not agreed(options, "\n".join(lines) + "\n"):
        return 0
    total = _containers(client, options, total=False)
    _networks(client, options)
    if with_volumes:
        total += _volumes(client, options, total=False, every=False)
    total += _images(client, options, total=False)
    total += _build_cache(client, options)
    text.out(f"Total reclaimed space: {units.human_size(total)}")
    return 0


_ALL_IMAGES = ("all", "a", SWITCH, "Remove all unused images, not just dangling ones")

BUILDER = Command(
    build_cache,
    "[OPTIONS]",
    (
        ("all", "a", SWITCH, "Remove all unused build cache, not just dangling ones"),
        LONG_FILTERS,
        _FORCE,
        ("keep-storage", "", BYTES, "Amount of disk space to keep for cache"),
    ),
    0,
    0,
)
CONTAINER = Command(containers, "[OPTIONS]", (LONG_FILTERS, _FORCE), 0, 0)
IMAGE = Command(images, "[OPTIONS]", (_ALL_IMAGES, LONG_FILTERS, _FORCE), 0, 0)
NETWORK = Command(networks, "[OPTIONS]", (LONG_FILTERS, _FORCE), 0, 0)
VOLUME = Command(
    volumes,
    "[OPTIONS]",
    (("all", "a", SWITCH, "Remove all unused volumes, not just anonymous ones"), LONG_FILTERS, _FORCE),
    0,
    0,
)
SYSTEM = Command(
    everything,
    "[OPTIONS]",
    (_ALL_IMAGES, LONG_FILTERS, _FORCE, ("volumes", "", SWITCH, "Prune anonymous volumes, too")),
    0,
    0,
    examples=(("system prune -af --filter until=24h", "everything unused that is older than a day"),),
)

"""Which calls work behind which wall: a page made of the runtimes' features.

`python -m bastide.api.openapi.walls` prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bastide import runtime
from bastide.runtime import Feature

Features = frozenset[Feature]


def _always(features: Features) -> bool:
    return True


def _with(*wanted: Feature) -> Callable[[Features], bool]:
    return lambda features: bool(features & set(wanted))


def _without(feature: Feature) -> Callable[[Features], bool]:
    return lambda features: feature not in features


ROWS: tuple[tuple[str, Callable[[Features], bool]], ...] = (
    ("create, start, stop, restart, kill, wait, rename, rm, prune", _always),
    ("logs, attach, exec, terminals and their size, exit codes", _always),
    ("published ports, networks, names, `--ip`, `--dns`, `--add-host`", _always),
    ("restart policies, health checks, events, inspect, ps and its filters", _always),
    ("cp, diff, export and commit, whether it runs or not", _always),
    ("cp, diff, export and commit while it is paused", _without(Feature.FILES)),
    ("pause, unpause", _with(Feature.PAUSE)),
    ("stats", _with(Feature.STATS)),
    ("top", _with(Feature.TOP)),
    ("update of limits while it runs", _with(Feature.UPDATE)),
    ("network connect and disconnect while it runs", _with(Feature.HOTPLUG_NETWORK)),
    ("volumes and bind mounts (`-v`, `--mount`, `--volumes-from`)", _with(Feature.BIND_MOUNTS)),
    ("`--network host`", _with(Feature.HOST_NETWORK)),
    ("`--network container:NAME`", _with(Feature.SHARED_NAMESPACES)),
    ("`--pid`, `--ipc`, `--uts` of the host or of another container", _with(Feature.SHARED_NAMESPACES)),
    ("`--privileged`", _with(Feature.PRIVILEGED)),
    ("`--device`, `--device-cgroup-rule`", _with(Feature.DEVICES)),
    ("`--sysctl`", _with(Feature.SYSCTLS)),
    ("`--init`", _with(Feature.INIT)),
    ("`--platform` of another architecture ([how](architectures.md))", _with(Feature.OTHER_ARCHITECTURES)),
    ("snapshots with memory", _with(Feature.SNAPSHOT)),
    ("clones of a running container", _with(Feature.CLONE)),
    ("templates made beforehand (`system prewarm`), VMs that wait for a start (`system pool`)", _with(Feature.POOL)),
)
"""What users ask for, and whether a runtime with these features does it."""

_HEAD = """# What works behind which wall

This page is generated from the runtimes' features (`python -m bastide.api.openapi.walls`). What a wall does
not offer is refused by name when it is asked for (API: 501; command line: one line, exit status 125 or 1).
What is different about volumes in a VM is in [volumes](volumes.md).

"""


def page() -> str:
    """The page, as Markdown."""
    names = list(runtime.runtimes())
    kinds = [runtime.load(name) for name in names]
    head = " | ".join(f"{kind.isolation.value} ({name})" for name, kind in zip(names, kinds, strict=True))
    lines = [f"| | {head} |\n", "|---" * (len(names) + 1) + "|\n"]
    for text, works in ROWS:
        cells = " | ".join("yes" if works(kind.features) else "refused" for kind in kinds)
        lines.append(f"| {text} | {cells} |\n")
    return _HEAD + "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())

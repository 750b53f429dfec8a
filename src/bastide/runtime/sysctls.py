"""Kernel parameters of a container: only those that belong to its own namespaces.

CVE-2022-0811 was a sysctl smuggled in through a `+` in another one's value, up to `kernel.core_pattern`:
names are checked against a list, and names and values against what may be in one.
"""

from __future__ import annotations

import re

from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument
from bastide.model.process import Bundle

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+\Z")
_VALUE = re.compile(r"[A-Za-z0-9 \t.,:/_=-]*\Z")
_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_DEFAULTS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
"""Docker's: a container without privileges may use low ports and ping."""


def settings(host: HostConfig, bundle: Bundle) -> dict[str, str]:
    """What to write, defaults and wishes. Raises InvalidArgument for what is not the container's own."""
    wanted = host.sysctls or {}
    own_network = not bundle.networking.host
    for name, value in wanted.items():
        _check(name, value, own_network, "ipc" not in bundle.namespaces)
    defaults = _DEFAULTS if own_network else {}
    return {**defaults, **wanted}


def _check(name: str, value: str, own_network: bool, own_ipc: bool) -> None:
    if not _NAME.match(name) or not _VALUE.match(value):
        raise InvalidArgument(f"invalid sysctl {name!r}: unexpected characters")
    if name in _IPC or name.startswith("fs.mqueue."):
        if not own_ipc:
            raise InvalidArgument(f"sysctl {name!r} not allowed in host or shared ipc namespace")
    elif name.startswith("net."):
        if not own_network:
            raise InvalidArgument(f"sysctl {name!r} not allowed in host network namespace")
    else:
        raise InvalidArgument(f"sysctl {name!r} is not in a separate kernel namespace")

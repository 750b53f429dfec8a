"""Network namespaces: made whole in one thread, kept by files under the run root, taken apart later.

A namespace as it is handed out has its loopback up, unprivileged ports and ping for everybody (as in
Docker), and IPv6 on a device only where its network has it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from bastide.host import links, netns
from bastide.host.netlink import Message, Netlink
from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument
from bastide.model.process import Interface

_ENODEV = 19

# ip_unprivileged_port_start and ping_group_range: what dockerd sets for every container.
_DEFAULTS = {
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
_SYSCTLS = Path("/proc/sys")


def folder(settings: Settings) -> Path:
    """Where the files lie that keep namespaces."""
    return settings.run_root / "netns"


def new_path(settings: Settings) -> Path:
    """A name that no namespace has."""
    return folder(settings) / secrets.token_hex(8)


def open_folder(settings: Settings) -> None:
    """Make the folder ready; blocks. Raises OSError."""
    netns.folder(folder(settings))


def make(paths: Sequence[Path], connect: Callable[[int, int], None] | None = None) -> None:
    """Make a namespace for each path; blocks for half a millisecond each. All or none. Raises OSError, HostError.

    `connect(number, descriptor)` is called inside each of them.
    """

    def body() -> None:
        made: list[Path] = []
        try:
            for number, path in enumerate(paths):
                descriptor = netns.unshare()
                try:
                    netns.pin(path)
                    made.append(path)
                    sysctls(_DEFAULTS)
                    with Netlink() as channel:
                        channel.request([links.up(links.index_of("lo"))])
                    if connect is not None:
                        connect(number, descriptor)
                finally:
                    os.close(descriptor)
        except BaseException:
            for path in made:
                netns.unpin(path)
            raise

    netns.own_thread(body)


def sysctls(values: dict[str, str]) -> None:
    """Set sysctls of the calling thread's network namespace; those that this kernel does not have are left."""
    for name, value in values.items():
        with suppress(FileNotFoundError):
            (_SYSCTLS / name).write_text(value)


def configure(interface: Interface) -> None:
    """Give the device `interface.name` of the calling thread's namespace its addresses, routes and sysctls.

    A default route's metric is the device's number, so that the first device has it while it lasts.
    """
    six = any(":" in address for address in interface.all_addresses)
    sysctls({f"net/ipv6/conf/{interface.name}/disable_ipv6": "0" if six else "1"})
    for name, value in interface.sysctls:
        try:
            (_SYSCTLS / name.replace(".", "/")).write_text(value)
        except OSError as error:
            raise InvalidArgument(f"sysctl {name}={value}: {error.strerror}") from error
    index = links.index_of(interface.name)
    metric = int("".join(filter(str.isdigit, interface.name)) or 0)
    messages: list[Message] = [links.up(index)]
    messages += [links.address(index, address) for address in interface.all_addresses]
    for gateway in interface.gateways:
        default = "::/0" if ":" in gateway else "0.0.0.0/0"
        messages.append(links.route(default, gateway, index, metric))
    messages += [links.route(destination, gateway, index) for destination, gateway in interface.routes]
    with Netlink() as channel:
        channel.request(messages)


def remove_devices(names: Iterable[str]) -> None:
    """Remove devices of the calling thread's namespace; absent ones are no error. Blocks. Raises HostError."""
    present = [name for name in names if links.index_of(name)]
    with Netlink() as channel:
        if len(present) < 2:
            channel.request([links.delete(name) for name in present], tolerated=(_ENODEV,))
            return
        group = secrets.randbelow(1 << 30) + 1
        channel.request([links.regroup(name, group) for name in present], tolerated=(_ENODEV,))
        channel.request([links.delete_group(group)], tolerated=(_ENODEV,))

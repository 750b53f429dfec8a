"""`bastide daemon`: the daemon in the foreground."""

from __future__ import annotations

import os

from bastide.cli import launch
from bastide.cli.grammar import Command, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def daemon(_client: Client, options: Options) -> int:
    """Become the daemon: this process is replaced by one that has the environment's packages."""
    command = launch.program(options.arguments)
    os.execv(command[0], command)


COMMAND = Command(
    daemon,
    "[OPTIONS]",
    bare=True,
    details="Everything after `daemon` goes to the daemon itself; `bastide daemon --help` is its own page.",
)

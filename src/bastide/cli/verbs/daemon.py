"""`bastide daemon`: the daemon in the foreground."""

from __future__ import annotations

import os
import sys

from bastide.cli.grammar import Command, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client

DETAILS = "Everything after `daemon` goes to the daemon itself; `bastide daemon --help` is its own page."


def daemon(_client: Client, options: Options) -> int:
    """Become the daemon: this process is replaced by one with the environment's packages."""
    source = __file__.rsplit("/", 4)[0]
    program = f"import sys; sys.path.insert(0, {source!r}); from bastide.daemon import main; sys.exit(main())"
    os.execv(sys.executable, [sys.executable, "-I", "-c", program, *options.arguments])


COMMAND = Command(daemon, "[OPTIONS]", bare=True, details=DETAILS)

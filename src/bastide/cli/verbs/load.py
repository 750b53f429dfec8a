"""`bastide load`, and how archives come in through standard input or a file."""

from __future__ import annotations

import os

from bastide.cli.grammar import STRING, SWITCH, Command, CommandError, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bastide.client import Client

_BLOCK = 1 << 20


def load(client: Client, options: Options) -> int:
    """Load images from an archive."""
    path, quiet = options.text("input"), options.on("quiet")
    if not path and os.isatty(0):
        raise CommandError("requested load from stdin, but stdin is empty")
    from bastide.cli.show import progress

    progress.show(client.images.load(read(path), quiet))
    return 0


def read(path: str) -> Iterator[bytes]:
    """The blocks of a file, or of standard input when the path is empty or `-`."""
    if path in ("", "-"):
        while block := os.read(0, _BLOCK):
            yield block
        return
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block


COMMAND = Command(
    load,
    "[OPTIONS]",
    (
        ("input", "i", STRING, "Read from a tar archive file, instead of STDIN"),
        ("quiet", "q", SWITCH, "Suppress the load output"),
    ),
    0,
    0,
)

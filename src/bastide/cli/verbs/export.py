"""`bastide export`, and how archives leave through standard output or a file."""

from __future__ import annotations

import os

from bastide.cli.grammar import STRING, Command, CommandError, Options
from bastide.cli.show.text import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bastide.client import Client

OUTPUT = ("output", "o", STRING, "Write to a file, instead of STDOUT")


def export(client: Client, options: Options) -> int:
    """Write a container's root file system as a tar archive."""
    return save(options.text("output"), lambda: client.containers.export(options.arguments[0]))


def save(path: str, source: Callable[[], Iterable[bytes]]) -> int:
    """Write an archive: to standard output, or to a file that appears only when it is whole."""
    if not path:
        if os.isatty(1):
            raise CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for block in source():
            write(1, block)
        return 0
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:
            device.writelines(source())
        return 0
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "xb") as file:
            file.writelines(source())
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    return 0


COMMAND = Command(
    export,
    "[OPTIONS] CONTAINER",
    (OUTPUT,),
    1,
    1,
    examples=(("export -o root.tar web", "everything in a container as one archive"),),
)

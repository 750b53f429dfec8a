"""`bastide rm`."""

from __future__ import annotations

from bastide.cli.grammar import SWITCH, Command, Options
from bastide.cli.show import text
from bastide.cli.verbs.each import for_each
from bastide.model.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def remove(client: Client, options: Options) -> int:
    """Remove containers and print their names."""
    force, volumes, link = options.on("force"), options.on("volumes"), options.on("link")

    def one(name: str) -> None:
        try:
            client.containers.remove(name.strip("/") or name, force, volumes, link)
        except NotFound as error:
            if not force:
                raise
            text.err(f"Error response from daemon: {error.message}")  # said, but not a failure
        else:
            text.out(name)

    return for_each(options.arguments, one, silent=True)


COMMAND = Command(
    remove,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        ("force", "f", SWITCH, "Remove a running container, too (uses SIGKILL)"),
        ("link", "l", SWITCH, "Remove the specified link"),
        ("volumes", "v", SWITCH, "Remove anonymous volumes associated with the container"),
    ),
    1,
    examples=(("rm -f $(bastide ps -aq)", "remove every container"),),
)

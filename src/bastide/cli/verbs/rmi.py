"""`bastide rmi`."""

from __future__ import annotations

from bastide.cli.grammar import SWITCH, Command, Options
from bastide.cli.show import text
from bastide.cli.verbs.each import for_each
from bastide.model.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def remove(client: Client, options: Options) -> int:
    """Remove images and print what was removed."""
    force, keep = options.on("force"), options.on("no-prune")

    def one(name: str) -> None:
        try:
            answer = client.images.remove(name, force, keep)
        except NotFound as error:
            if not force:
                raise
            text.err(f"Error response from daemon: {error.message}")
            return
        for item in answer:
            kind = "Deleted" if item.get("Deleted") else "Untagged"
            text.out(f"{kind}: {item[kind]}")

    return for_each(options.arguments, one, silent=True)


COMMAND = Command(
    remove,
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        ("force", "f", SWITCH, "Force removal of the image"),
        ("no-prune", "", SWITCH, "Do not delete untagged parents"),
    ),
    1,
)

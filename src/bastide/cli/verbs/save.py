"""`bastide save`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options
from bastide.cli.verbs import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def save(client: Client, options: Options) -> int:
    """Write images as one archive."""
    return export.save(options.text("output"), lambda: client.images.save(options.arguments).blocks())


COMMAND = Command(
    save,
    "[OPTIONS] IMAGE [IMAGE...]",
    (export.OUTPUT,),
    1,
    examples=(("save debian:12 | ssh other bastide load", "an image without a registry"),),
)

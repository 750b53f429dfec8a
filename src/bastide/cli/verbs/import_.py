"""`bastide import`."""

from __future__ import annotations

from bastide.cli.grammar import LIST, STRING, Command, Options
from bastide.cli.options import references
from bastide.cli.show import progress
from bastide.cli.verbs import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def import_(client: Client, options: Options) -> int:
    """Make an image of a root file system in an archive."""
    source, *target = options.arguments
    name, tag = references.split(target[0]) if target else ("", "")
    far = source.startswith(("http://", "https://"))
    query = {
        "fromSrc": source if far else "-",
        "repo": name,
        "tag": tag,
        "message": options.text("message"),
        "changes": options.all("change"),
        "platform": options.text("platform"),
    }
    progress.show(client.images.create_from(query, None if far else load.read(source)))
    return 0


COMMAND = Command(
    import_,
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    (
        ("change", "c", LIST, "Apply a Dockerfile instruction to the created image"),
        ("message", "m", STRING, "Commit message of the imported image"),
        ("platform", "", STRING, "Platform of the image (os/arch[/variant])"),
    ),
    1,
    2,
)

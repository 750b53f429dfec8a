"""`bastide commit`."""

from __future__ import annotations

from bastide.cli.grammar import LIST, ON, STRING, Command, Options
from bastide.cli.options import references
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def commit(client: Client, options: Options) -> int:
    """Make an image of a container and print its id."""
    container, *target = options.arguments
    name, tag = references.split(target[0]) if target else ("", "")
    query = {
        "container": container,
        "repo": name,
        "tag": tag,
        "comment": options.text("message"),
        "author": options.text("author"),
        "changes": options.all("change"),
        "pause": "1" if options.on("pause", True) else "0",
    }
    text.out(client.containers.commit(query, {}))
    return 0


COMMAND = Command(
    commit,
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    (
        ("author", "a", STRING, 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        ("change", "c", LIST, "Apply a Dockerfile instruction to the created image"),
        ("message", "m", STRING, "Commit message"),
        ("pause", "p", ON, "Pause the container during the commit"),
    ),
    1,
    2,
)

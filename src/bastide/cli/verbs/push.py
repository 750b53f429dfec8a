"""`bastide push`."""

from __future__ import annotations

from bastide.cli.grammar import SWITCH, Command, CommandError, Options
from bastide.cli.options import references
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def push(client: Client, options: Options) -> int:
    """Push an image to its registry."""
    from bastide.cli import credentials
    from bastide.cli.show import progress

    name, tag = references.split(options.arguments[0])
    every, quiet = options.on("all-tags"), options.on("quiet")
    if every and tag:
        raise CommandError("tag can't be used with --all-tags/-a")
    if not every and not tag:
        tag = "latest"
        if not quiet:
            text.out("Using default tag: latest")
    auth = credentials.header(credentials.find(references.auth_key(references.domain(name)[0])))
    messages = client.images.push(name, tag, auth)
    if quiet:
        for _ in messages:
            pass
        text.out(references.full(name, tag or "latest"))
    else:
        progress.show(messages)
    return 0


COMMAND = Command(
    push,
    "[OPTIONS] NAME[:TAG]",
    (
        ("all-tags", "a", SWITCH, "Push all tags of an image to the repository"),
        ("quiet", "q", SWITCH, "Suppress verbose output"),
    ),
    1,
    1,
)

"""`bastide wait`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options
from bastide.cli.show import text
from bastide.cli.verbs.each import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def wait(client: Client, options: Options) -> int:
    """Wait for containers and print their exit statuses."""

    def one(name: str) -> None:
        code, problem = client.containers.wait(name)
        if problem:
            text.err(text.one_line(problem))
        text.out(str(code))

    return for_each(options.arguments, one, silent=True)


COMMAND = Command(wait, "CONTAINER [CONTAINER...]", (), 1)

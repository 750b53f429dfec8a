"""`bastide logs`."""

from __future__ import annotations

from bastide.cli import streams
from bastide.cli.grammar import STRING, SWITCH, Command, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def logs(client: Client, options: Options) -> int:
    """Print what a container wrote, to the streams that it wrote to."""
    details = client.containers.inspect(options.arguments[0])
    query = {
        "stdout": True,
        "stderr": True,
        "follow": options.on("follow"),
        "timestamps": options.on("timestamps"),
        "details": options.on("details"),
        "tail": options.text("tail", "all"),
    }
    for name in ("since", "until"):
        if name in options:
            from bastide.cli.show import moments

            query[name] = moments.timestamp(options.text(name))
    response = client.containers.logs(details["Id"], query)
    deliver = streams.plain if details["Config"].get("Tty") else streams.Frames().feed
    for block in response.blocks():
        deliver(block)
    return 0


COMMAND = Command(
    logs,
    "[OPTIONS] CONTAINER",
    (
        ("details", "", SWITCH, "Show extra details provided to logs"),
        ("follow", "f", SWITCH, "Follow log output"),
        ("since", "", STRING, 'Show logs since a timestamp ("2013-01-02T13:23:37Z") or relative ("42m")'),
        ("tail", "n", STRING, "Number of lines to show from the end of the logs"),
        ("timestamps", "t", SWITCH, "Show timestamps"),
        ("until", "", STRING, 'Show logs before a timestamp ("2013-01-02T13:23:37Z") or relative ("42m")'),
    ),
    1,
    1,
    examples=(("logs -f --tail 20 web", "the last twenty lines, and what follows"),),
)

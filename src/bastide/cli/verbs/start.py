"""`bastide start`."""

from __future__ import annotations

from bastide.cli.grammar import STRING, SWITCH, Command, CommandError, Options, UsageError
from bastide.cli.show import text
from bastide.cli.verbs.each import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object


def start(client: Client, options: Options) -> int:
    """Start containers and print their names, or attach to one."""
    names = options.arguments
    if options.on("attach") or options.on("interactive"):
        if len(names) > 1:
            raise CommandError("you cannot start and attach multiple containers at once")
        return _attached(client, names[0], options)
    started: list[str] = []

    def one(name: str) -> None:
        client.containers.start(name)
        started.append(name)
        text.out(name)

    code = for_each(names, one, silent=True)
    if code:
        text.err("Error: failed to start containers: " + ", ".join(n for n in names if n not in started))
    return code


def _attached(client: Client, name: str, options: Options) -> int:
    from bastide.cli.verbs import run

    details: Object = client.containers.inspect(name)
    config = details["Config"]
    if details["State"]["Running"]:
        raise UsageError(f"container {name} is running already: use attach")
    stdin = options.on("interactive") and bool(config.get("OpenStdin"))
    attached = ("stdin", "stdout", "stderr") if stdin else ("stdout", "stderr")
    removed = bool((details.get("HostConfig") or {}).get("AutoRemove"))
    return run.foreground(client, details["Id"], attached, options, tty=bool(config.get("Tty")), removed=removed)


COMMAND = Command(
    start,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        ("attach", "a", SWITCH, "Attach STDOUT/STDERR and forward signals"),
        ("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        ("interactive", "i", SWITCH, "Attach container's STDIN"),
    ),
    1,
    examples=(("start -ai work", "go back into a stopped container's shell"),),
)

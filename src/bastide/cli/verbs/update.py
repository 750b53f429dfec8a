"""`bastide update`."""

from __future__ import annotations

from bastide.cli.grammar import Command, Options, UsageError
from bastide.cli.options import flags
from bastide.cli.options.container import restart_policy
from bastide.cli.show import text
from bastide.cli.verbs.each import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object

_NAMES = (
    "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems "
    "memory memory-reservation memory-swap pids-limit restart"
).split()


def update(client: Client, options: Options) -> int:
    """Change the limits or the restart policy of containers."""
    changes: Object = {flags.HOST[name]: options.values[name] for name in options.values if name in flags.HOST}
    if "restart" in options:
        changes["RestartPolicy"] = restart_policy(options.text("restart"))
    if not changes:
        raise UsageError("you must provide one or more flags when using this command", 1)

    def one(name: str) -> None:
        for warning in client.containers.update(name, changes).get("Warnings") or []:
            text.err(text.one_line(warning))

    return for_each(options.arguments, one)


COMMAND = Command(
    update,
    "[OPTIONS] CONTAINER [CONTAINER...]",
    tuple(flag for flag in flags.CREATE if flag[0] in _NAMES),
    1,
    examples=(("update --memory 512m --memory-swap 1g web", "other limits for a running container"),),
)

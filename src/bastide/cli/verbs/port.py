"""`bastide port`."""

from __future__ import annotations

from bastide.cli.grammar import Command, CommandError, Options
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object


def port(client: Client, options: Options) -> int:
    """Show where a container's ports are published."""
    name, *wanted = options.arguments
    details = client.containers.inspect(name)
    published = (details.get("NetworkSettings") or {}).get("Ports") or {}
    if not wanted:
        lines = [f"{inner} -> {_place(b)}" for inner, bindings in published.items() for b in bindings or []]
        for line in sorted(lines, key=_natural):
            text.out(line)
        return 0
    inner, _, protocol = wanted[0].partition("/")
    bindings = published.get(f"{inner}/{protocol or 'tcp'}")
    if not bindings:
        raise CommandError(f"Error: No public port '{wanted[0]}' published for {name}")
    for binding in bindings:
        text.out(_place(binding))
    return 0


def _place(binding: Object) -> str:
    address = binding.get("HostIp") or "0.0.0.0"
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


def _natural(line: str) -> tuple[int, str]:
    digits = line.partition("/")[0]
    return int(digits) if digits.isdecimal() else 0, line


COMMAND = Command(port, "CONTAINER [PRIVATE_PORT[/PROTO]]", (), 1, 2)

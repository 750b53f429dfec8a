"""The pages that `--help` prints, made from the tables."""

from __future__ import annotations

import os

from bastide.cli import commands
from bastide.cli.grammar import ON, SWITCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bastide.cli.grammar import Command, Flag

GLOBAL_FLAGS: Sequence[Flag] = (
    ("config", "", "string", "Folder of the client's configuration (default ~/.docker)"),
    ("debug", "D", SWITCH, "Show where an error of the command line itself comes from"),
    ("host", "H", "string", "Daemon to connect to: unix://, tcp:// or ssh://"),
    ("tls", "", SWITCH, "Use TLS; implied by --tlsverify"),
    ("tlscacert", "", "string", "Trust certificates signed only by this CA"),
    ("tlscert", "", "string", "Certificate to show to the daemon"),
    ("tlskey", "", "string", "Key of that certificate"),
    ("tlsverify", "", SWITCH, "Use TLS and verify the daemon"),
    ("version", "v", SWITCH, "Print the version and quit"),
)


def width() -> int:
    """Columns of the terminal, 80 when there is none."""
    try:
        return max(60, min(os.get_terminal_size(1).columns, 120))
    except OSError:
        return 80


def wrap(text: str, columns: int) -> list[str]:
    """Break a text into lines of at most `columns` characters."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > columns:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".lstrip()
    return [*lines, line]


def top(columns: int) -> str:
    """`bastide --help`."""
    common = commands.COMMON.split()
    rest = [name for name in commands.COMMANDS if " " not in name and name not in common]
    parts = [
        "Usage:  bastide [OPTIONS] COMMAND\n\nOne engine for containers and virtual machines\n",
        "Common Commands:\n" + _list((name, commands.COMMANDS[name][1]) for name in common),
        "Management Commands:\n" + _list(commands.GROUPS.items()),
        "Commands:\n" + _list((name, commands.COMMANDS[name][1]) for name in rest),
        "Global Options:\n" + _flags(GLOBAL_FLAGS, columns),
        "BASTIDE_HOST or DOCKER_HOST name the daemon; docker's contexts are not used.",
        "Run 'bastide COMMAND --help' for more information on a command.\n",
    ]
    return "\n".join(parts)


def group(name: str) -> str:
    """`bastide container --help` and its like."""
    return (
        f"Usage:  bastide {name} COMMAND\n\n{commands.GROUPS[name]}\n\nCommands:\n"
        + _list(commands.members(name).items())
        + f"\nRun 'bastide {name} COMMAND --help' for more information on a command.\n"
    )


def page(name: str, command: Command, columns: int) -> str:
    """`bastide run --help` and its like."""
    parts = [f"{usage(name, command)}\n\n{commands.COMMANDS[name][1]}\n"]
    if command.details:
        parts.append("\n".join(wrap(command.details, columns)) + "\n")
    names = commands.spellings(name)
    if len(names) > 1:
        parts.append("Aliases:\n  " + ", ".join(f"bastide {spelling}" for spelling in names) + "\n")
    if command.flags:
        parts.append("Options:\n" + _flags(command.flags, columns))
    if command.examples:
        lines = [f"  # {text}\n  bastide {line}\n" for line, text in command.examples]
        parts.append("Examples:\n" + "\n".join(lines))
    return "\n".join(parts)


def usage(name: str, command: Command) -> str:
    """The line that shows a command's form."""
    form = "\n        ".join(f"bastide {name} {line}".rstrip() for line in command.usage.split("\n"))
    return f"Usage:  {form}"


def _list(items: Iterable[tuple[str, str]]) -> str:
    return "".join([f"  {name:<11} {summary}\n" for name, summary in items])


def _flags(flags: Sequence[Flag], columns: int) -> str:
    heads = []
    for name, short, kind, _ in flags:
        start = f"  -{short}, --{name}" if short else f"      --{name}"
        heads.append(start if kind in (SWITCH, ON) else f"{start} {kind}")
    left = max(map(len, heads)) + 3
    lines = []
    for head, (_, _, kind, text) in sorted(zip(heads, flags, strict=True), key=lambda row: row[1][0]):
        first, *more = wrap(text + (" (default true)" if kind == ON else ""), max(columns - left, 24))
        lines.append(f"{head:<{left}}{first}\n")
        lines += [f"{'':<{left}}{line}\n" for line in more]
    return "".join(lines)

"""`bastide completion`: scripts for bash, zsh and fish, made from the tables of commands and flags."""

from __future__ import annotations

from bastide.cli import completion
from bastide.cli.grammar import Command, CommandError, Options
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def complete(_client: Client, options: Options) -> int:
    """Print a script."""
    make = completion.SHELLS.get(options.arguments[0])
    if make is None:
        raise CommandError(f"no completion for {options.arguments[0]}: use one of {', '.join(completion.SHELLS)}")
    text.put(make())
    return 0


COMMAND = Command(
    complete,
    "bash|fish|zsh",
    (),
    1,
    1,
    examples=(
        ("completion bash > /etc/bash_completion.d/bastide", "for every user's bash"),
        ("completion fish > ~/.config/fish/completions/bastide.fish", "for one's own fish"),
    ),
)

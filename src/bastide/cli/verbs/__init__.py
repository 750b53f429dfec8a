"""The commands, a file each; `bastide.cli.commands` is their table."""

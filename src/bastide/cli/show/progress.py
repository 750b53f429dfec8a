"""Progress of pulls, pushes, loads and builds: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os

from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bastide.client import Object


_RED, _PLAIN = "\x1b[91m", "\x1b[0m"  # what the classic builder puts around standard error


def show(messages: Iterable[Object], descriptor: int = 1, aux: Callable[[Object], None] | None = None) -> None:
    """Print the daemon's messages as they come. `aux` is called with what is meant for programs."""
    if os.isatty(descriptor) and os.environ.get("TERM") not in (None, "", "dumb"):
        from bastide.cli.show import bars

        bars.show(messages, descriptor, aux)
        return
    for message in messages:
        line = plain(message)
        if line is None:
            if aux is not None and message.get("aux"):
                aux(message["aux"])
        else:
            text.write(
                descriptor, text.safe(line).encode("utf-8", "replace") if os.isatty(descriptor) else line.encode()
            )


def plain(message: Object) -> str | None:
    """A message as a line for a log; None when it is only a step of a bar or meant for programs."""
    if "stream" in message:
        return str(message["stream"]).replace(_RED, "").replace(_PLAIN, "")
    if "status" not in message or message.get("progressDetail") or message.get("progress"):
        return None
    prefix = f"{message['id']}: " if message.get("id") else ""
    return f"{prefix}{message['status']}\n"

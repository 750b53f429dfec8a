"""Writing to standard output and standard error.

Names, labels and messages come from images and from other people. On a terminal their control
characters are shown as escapes and never sent, so that they cannot move the cursor, change the
title or hide text. What goes to a file or a pipe stays as it is.
"""

from __future__ import annotations

import posix

_STDOUT, _STDERR = 1, 2
_BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE, what a program that the signal ends leaves


def _escapes() -> dict[int, str]:
    """C0 but tab and newline, DEL, C1, and the marks that reorder text (Unicode TR 9)."""
    control = [*range(9), *range(11, 32), *range(127, 160)]
    marks = [0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    return {code: f"\\x{code:02x}" for code in control} | {code: f"\\u{code:04x}" for code in marks}


_ESCAPES: dict[int, str] = {}


def safe(text: str) -> str:
    """The text with control characters made visible."""
    if text.isascii() and text.isprintable():
        return text
    if not _ESCAPES:
        _ESCAPES.update(_escapes())
    return text.translate(_ESCAPES)


def out(text: str) -> None:
    """Print a line (or lines) on standard output. Ends the program when nobody reads it any more."""
    _print(_STDOUT, text + "\n")


def out_made_safe(text: str) -> None:
    """Print a line on standard output whose foreign parts were made safe already; the rest is the user's own."""
    write(_STDOUT, (text + "\n").encode("utf-8", "surrogateescape"))


def for_output(text: str) -> str:
    """A foreign text as it may go to standard output: `safe` where that is a terminal."""
    return safe(text) if posix.isatty(_STDOUT) else text


def err(text: str) -> None:
    """Print a line on standard error."""
    _print(_STDERR, text + "\n")


def put(text: str) -> None:
    """Print on standard output without a newline."""
    _print(_STDOUT, text)


def one_line(text: str) -> str:
    """A message as one line."""
    return " ".join(text.split())


def write(descriptor: int, data: bytes) -> None:
    """Write all of it, as it is. Ends the program when nobody reads it any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(descriptor, view) :]
        except BrokenPipeError:
            raise SystemExit(_BROKEN_PIPE_STATUS) from None
        except BlockingIOError:
            import select

            select.select([], [descriptor], [])


def _print(descriptor: int, text: str) -> None:
    if posix.isatty(descriptor):
        text = safe(text)
    write(descriptor, text.encode("utf-8", "surrogateescape"))

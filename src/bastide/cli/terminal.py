"""This side's terminal: raw mode, size, and the keys that detach."""

from __future__ import annotations

import posix

from bastide.cli.grammar import UsageError

_STDIN, _STDOUT = 0, 1
DETACH_KEYS = "ctrl-p,ctrl-q"


def size() -> tuple[int, int]:
    """Rows and columns, 0 and 0 where there is no terminal."""
    try:
        columns, rows = posix.get_terminal_size(_STDOUT)
    except OSError:
        return 0, 0
    return rows, columns


def configured_keys() -> str:
    """The sequence that detaches unless a flag names another: `detachKeys` of the configuration, else docker's."""
    from bastide.cli import credentials

    return str(credentials.load().get("detachKeys") or DETACH_KEYS)


def keys(word: str) -> bytes:
    """The bytes of a sequence as `ctrl-p,ctrl-q` or `a,b,ctrl-@`. Raises UsageError."""
    sequence = bytearray()
    for key in word.split(","):
        letter = key[5:].upper() if key.startswith("ctrl-") else ""
        if len(letter) == 1 and "@" <= letter <= "_":
            sequence.append(ord(letter) - 64)
        elif len(key) == 1 and key.isascii():
            sequence.append(ord(key))
        else:
            raise UsageError(f"invalid detach keys ({word}): unknown character: '{key}'")
    return bytes(sequence)


class Raw:
    """The terminal without line editing and echo, for the time of a `with` block."""

    def __enter__(self) -> Raw:
        import termios

        self._before = termios.tcgetattr(_STDIN)
        mode = termios.tcgetattr(_STDIN)
        # cfmakeraw(3).
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(_STDIN, termios.TCSANOW, mode)
        return self

    def __exit__(self, *_exception: object) -> None:
        import termios

        termios.tcsetattr(_STDIN, termios.TCSADRAIN, self._before)

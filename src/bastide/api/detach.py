"""The keys that let go of a terminal: `ctrl-p,ctrl-q` unless the client names others."""

from __future__ import annotations

from bastide.model.errors import InvalidArgument

DEFAULT = b"\x10\x11"

# Names beside `ctrl-a` … `ctrl-z`: moby/term, ascii.go.
_NAMED = {"ctrl-@": 0, "ctrl-[": 27, "ctrl-\\": 28, "ctrl-]": 29, "ctrl-^": 30, "ctrl-_": 31, "DEL": 127}


def parse(keys: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes that a terminal sends. Raises InvalidArgument."""
    if not keys:
        return DEFAULT
    found = bytearray()
    for key in keys.split(","):
        letter = key.removeprefix("ctrl-")
        if key in _NAMED:
            found.append(_NAMED[key])
        elif len(key) == 1 and key.isascii():
            found.append(ord(key))
        elif key.startswith("ctrl-") and len(letter) == 1 and "a" <= letter <= "z":
            found.append(ord(letter) - ord("a") + 1)
        else:
            raise InvalidArgument(f"Invalid detach keys ({keys}) provided: Unknown character: '{key}'")
    return bytes(found)


class Detector:
    """Finds the sequence in what is typed. Keys that might begin it are kept back until it is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._kept = 0
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        """What of `data` goes to the process; `detached` is set once the sequence was typed."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._kept]:
                self._kept += 1
                if self._kept == len(self._keys):
                    self.detached = True
                    return bytes(passed)
                continue
            passed += self._keys[: self._kept]
            self._kept = 0
            if byte == self._keys[0] and len(self._keys) > 1:
                self._kept = 1
            else:
                passed.append(byte)
        return bytes(passed)

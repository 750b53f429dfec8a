"""Values of build secrets between the request that brings them and the build that uses them: in memory, once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from bastide.model.errors import NotFound, ResourceExhausted

SIZE_LIMIT = 500 << 10
"""Bytes of one secret, as in BuildKit."""
COUNT_LIMIT = 100
_WAITING = 64
_SECONDS = 600.0


class Secrets:
    """Values that wait for their build. The text form of this object shows none of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, dict[str, bytes]]] = {}

    def put(self, values: Mapping[str, bytes]) -> str:
        """Keep values for ten minutes at most; gives the word that takes them. Raises ResourceExhausted."""
        if len(values) > COUNT_LIMIT or any(len(value) > SIZE_LIMIT for value in values.values()):
            raise ResourceExhausted(f"at most {COUNT_LIMIT} secrets of {SIZE_LIMIT} bytes each are taken")
        now = time.monotonic()
        self._waiting = {word: kept for word, kept in self._waiting.items() if kept[0] > now}
        if len(self._waiting) >= _WAITING:
            raise ResourceExhausted("too many secrets wait for their builds")
        word = secrets.token_urlsafe(32)
        self._waiting[word] = (now + _SECONDS, dict(values))
        return word

    def take(self, word: str) -> dict[str, bytes]:
        """The values of a word, which then are forgotten here. Raises NotFound."""
        end, values = self._waiting.pop(word, (0.0, {}))
        if end < time.monotonic():
            raise NotFound("no secrets wait under that name: send them again")
        return values

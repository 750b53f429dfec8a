"""JSON from strangers: one way to read it, one error whatever is wrong with it."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from bastide.model.errors import InvalidArgument

T = TypeVar("T")


def decode(data: bytes, kind: type[T], what: str) -> T:
    """A document as `kind`; `what` begins the message.

    Raises InvalidArgument: it is no JSON, no UTF-8, too deep, or of another shape.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"{what}: {error}") from error

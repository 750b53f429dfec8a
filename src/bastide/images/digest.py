"""Digests: `sha256:` and 64 hexadecimal digits (OCI image-spec, descriptor.md). No other algorithm is taken."""

from __future__ import annotations

import hashlib
import re

from bastide.model.errors import InvalidArgument

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether it is a digest that can be checked."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: str) -> str:
    """The digest itself. Raises InvalidArgument."""
    if not is_digest(text):
        raise InvalidArgument(f"invalid or unsupported digest {text[:100]!r}: sha256 is needed")
    return text


def digest_of(data: bytes) -> str:
    """The digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short(digest: str) -> str:
    """The twelve digits that people see."""
    return digest.removeprefix("sha256:")[:12]

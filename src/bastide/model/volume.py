"""Volumes, in the Docker Engine API's terms."""

from __future__ import annotations

from bastide.model.wire import Wire


class Volume(Wire, frozen=True, kw_only=True):
    """A named volume. `mountpoint` is the host's directory; `anonymous` ones have a made-up name."""

    name: str
    driver: str = "local"
    mountpoint: str = ""
    created_at: str = ""
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    scope: str = "local"
    anonymous: bool = False

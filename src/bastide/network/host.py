"""The `host` driver: the host's own network."""

from __future__ import annotations

from bastide.network.none import Without


class Host(Without, name="host"):
    """The host's network namespace is shared; there is nothing to connect."""

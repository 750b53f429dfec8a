"""Snapshots of containers: a saved state to go back to or to clone from."""

from __future__ import annotations

from bastide.model.container import Container
from bastide.model.wire import Wire


class Snapshot(Wire, frozen=True, kw_only=True):
    """A saved state. `id` is also the key of its copy in the snapshotter.

    `parent` is the snapshot that the container was last at ("" for none), so that a container's
    snapshots form a tree; `memory` tells whether the running memory is in it; `record` is the
    container as it was.
    """

    id: str
    container: str
    tag: str
    created: str
    parent: str
    memory: bool
    record: Container

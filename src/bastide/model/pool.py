"""What is told about warm VMs: clones that wait for a container."""

from __future__ import annotations

from bastide.model.process import Struct


class Named(Struct, frozen=True, kw_only=True):
    """An image as runtimes need to know it: what the user calls it, and what its programs are for (Go's name)."""

    name: str = ""
    architecture: str = ""


ANY_IMAGE = Named()


class Shape(Struct, frozen=True, kw_only=True):
    """VMs of one kind that wait: for containers of `image` (empty: of any), with so much memory (bytes), processors and
    network interfaces. `ready` of `wanted` are there and use `used` bytes.
    """

    image: str
    memory: int
    cpus: int
    interfaces: int
    ready: int
    wanted: int
    used: int


class PoolState(Struct, frozen=True, kw_only=True):
    """The pool: how many bytes it may use and does. `reason` says why it is off; empty while it is on."""

    limit: int
    used: int
    reason: str
    shapes: tuple[Shape, ...] = ()

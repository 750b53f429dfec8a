"""Image references as users write them."""

from __future__ import annotations

from bastide.cli.grammar import CommandError

HUB = "docker.io"
_HUB_AUTH = "https://index.docker.io/v1/"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-/")


def split(reference: str) -> tuple[str, str]:
    """Name and tag (or digest) of a reference; the tag is "" where there is none.

    Raises CommandError with Docker's text when it is no reference.
    """
    name, at, digest = reference.partition("@")
    colon = name.rfind(":")
    tag = ""
    if colon > name.rfind("/"):
        name, tag = name[:colon], name[colon + 1 :]
        if not tag:
            raise CommandError("invalid reference format")
    path = domain(name)[1]
    if not path.strip("/") or path.startswith("/") or path.endswith("/") or "//" in path:
        raise CommandError("invalid reference format")
    if set(path) - _NAME:
        reason = f": repository name ({path}) must be lowercase" if path.lower() != path else ""
        raise CommandError(f"invalid reference format{reason}")
    return name, digest if at else tag


def domain(name: str) -> tuple[str, str]:
    """The registry and the path in it, as Docker completes them (`busybox` is docker.io, library/busybox)."""
    head, slash, rest = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head.lower() != head):
        registry, path = head, rest
    else:
        registry, path = HUB, name
    if registry == "index.docker.io":
        registry = HUB
    if registry == HUB and "/" not in path:
        path = f"library/{path}"
    return registry, path


def full(name: str, tag: str) -> str:
    """The canonical spelling: `docker.io/library/busybox:latest`."""
    registry, path = domain(name)
    return f"{registry}/{path}{'@' if ':' in tag else ':'}{tag}"


def auth_key(registry: str) -> str:
    """The name of a registry in `config.json`."""
    return _HUB_AUTH if registry in (HUB, "index.docker.io", "registry-1.docker.io") else registry

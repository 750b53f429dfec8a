"""`RUN --mount=…`: what a step sees beside its image, and what never gets into a layer."""

from __future__ import annotations

import posixpath
import re

import msgspec

from bastide.images.dockerfile.flags import pairs, size, truth
from bastide.model.errors import InvalidArgument, Unsupported

SECRETS = "/run/secrets"
_NAMES = {"src": "source", "dst": "target", "destination": "target", "readonly": "ro", "readwrite": "rw"}
_ALLOWED = {
    "bind": {"type", "from", "source", "target", "rw", "ro"},
    "cache": {"type", "id", "from", "source", "target", "ro", "rw", "sharing", "mode", "uid", "gid"},
    "tmpfs": {"type", "target", "size"},
    "secret": {"type", "id", "source", "target", "required", "mode", "uid", "gid", "env"},
    "ssh": {"type", "id", "source", "target", "required", "mode", "uid", "gid"},
}
_ID = re.compile(r"[^\x00/][^\x00]{0,254}")


class StepMount(msgspec.Struct, frozen=True, kw_only=True):
    """One mount of a RUN. `mode` None means its kind's own default; `size` is bytes, 0 for no limit.

    `origin` (`from=`) is a stage or image, "" the context (bind) or an empty directory (cache).
    """

    kind: str
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    read_only: bool = True
    sharing: str = "shared"
    required: bool = False
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0


def parse_mount(text: str) -> StepMount:
    """A mount as written. Raises InvalidArgument, and Unsupported for what is refused by name."""
    given: dict[str, str | None] = {}
    for name, value in pairs(text):
        given[_NAMES.get(name, name)] = value
    kind = given.get("type") or "bind"
    if kind not in _ALLOWED:
        raise InvalidArgument(f'unsupported mount type "{kind}"')
    for name, value in given.items():
        if name not in _ALLOWED[kind]:
            raise InvalidArgument(f"unexpected key '{name}' in mount of type {kind}: '{text}'")
        if not value and name not in ("ro", "rw", "required"):
            raise InvalidArgument(f"invalid field '{name}' must be a key=value pair")
    if "env" in given:
        raise Unsupported(
            "RUN --mount=type=secret,env= is not offered: the value would stand in the container's configuration; "
            "read it from the file instead"
        )
    return _built(kind, {name: value if value is not None else "true" for name, value in given.items()}, text)


def _built(kind: str, given: dict[str, str], text: str) -> StepMount:
    found = StepMount(
        kind=kind,
        target=given.get("target", ""),
        source=given.get("source", ""),
        origin=given.get("from", ""),
        id=given.get("id", "") or (given.get("source", "") if kind in ("secret", "ssh") else ""),
        read_only=_read_only(kind, given),
        sharing=given.get("sharing", "shared"),
        required=truth(given.get("required", "false"), "required"),
        mode=_octal(given["mode"]) if "mode" in given else None,
        uid=_number(given.get("uid", "0"), "uid"),
        gid=_number(given.get("gid", "0"), "gid"),
        size=size(given["size"], "tmpfs") if "size" in given else 0,
    )
    if found.sharing not in ("shared", "private", "locked"):
        raise InvalidArgument(f"unsupported sharing value '{found.sharing}'")
    if kind in ("bind", "cache", "tmpfs") and not found.target:
        raise InvalidArgument(f"target is required in mount of type {kind}: '{text}'")
    if found.id and not _ID.fullmatch(found.id):
        raise InvalidArgument(f"invalid mount id {found.id!r}")
    return _with_defaults(found)


def _with_defaults(found: StepMount) -> StepMount:
    if found.kind == "secret":
        if not found.id and not found.target:
            raise InvalidArgument("invalid mount of type secret: it needs an id or a target")
        identifier = found.id or posixpath.basename(found.target)
        target = found.target or posixpath.join(SECRETS, posixpath.basename(identifier))
        return msgspec.structs.replace(found, id=identifier, target=target)
    if found.kind == "ssh":
        return msgspec.structs.replace(found, id=found.id or "default")
    if found.kind == "cache":
        return msgspec.structs.replace(found, id=found.id or posixpath.normpath(found.target))
    return found


def _read_only(kind: str, given: dict[str, str]) -> bool:
    if "rw" in given:
        return not truth(given["rw"], "rw")
    if "ro" in given:
        return truth(given["ro"], "ro")
    return kind == "bind"


def _octal(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise InvalidArgument(f"invalid value '{text}' for mode: octal digits are needed")
    return mode


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 31):
        raise InvalidArgument(f"invalid value '{text}' for {what}: a number is needed")
    return int(text)

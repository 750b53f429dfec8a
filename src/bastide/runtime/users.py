"""Who a process runs as: names looked up in the container's own files, never in the host's.

The rules are Docker's (github.com/moby/sys/user, GetExecUser): a number need not be in /etc/passwd; a
name must be; the groups that list a user are added unless a group was named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bastide.host.paths import read_in
from bastide.model.errors import InvalidArgument
from bastide.model.process import Struct

_LIMIT = 1 << 20
"""Bytes read of a file that the image may have filled with anything."""
_HIGHEST = (1 << 31) - 1


class Identity(Struct, frozen=True, kw_only=True):
    """A user and its groups as numbers; `groups` has the primary one first."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = ""


def resolve(root: int, user: str, extra: Sequence[str] = ()) -> Identity:
    """The identity of `user` (`name`, `uid`, `user:group`) in the tree at descriptor `root`.

    `extra` are further groups, by name or number. Raises InvalidArgument in Docker's words.
    """
    wanted, colon, group = user.partition(":")
    uid, gid, name, home = _user(root, wanted or "0")
    groups: list[int] = []
    entries = list(_entries(root, "/etc/group", 3)) if group or name or extra else []
    if colon and group:
        gid = _group(entries, group)
    elif name:
        groups = [int(entry[2]) for entry in entries if len(entry) > 3 and name in entry[3].split(",")]
    groups = [gid, *groups, *(_group(entries, other) for other in extra)]
    return Identity(uid=uid, gid=gid, groups=tuple(dict.fromkeys(groups)), home=home)


def _user(root: int, wanted: str) -> tuple[int, int, str, str]:
    """uid, gid, name and home; a number that nobody has stands for itself, with group 0."""
    number = _number(wanted)
    for entry in _entries(root, "/etc/passwd", 4):
        if entry[0] == wanted or (number is not None and int(entry[2]) == number):
            if _number(entry[3]) is None:
                continue
            return int(entry[2]), int(entry[3]), entry[0], entry[5] if len(entry) > 5 else ""
    if number is None:
        raise InvalidArgument(f"unable to find user {wanted}: no matching entries in passwd file")
    return number, 0, "", ""


def _group(entries: list[list[str]], wanted: str) -> int:
    for entry in entries:
        if entry[0] == wanted:
            return int(entry[2])
    number = _number(wanted)
    if number is None:
        raise InvalidArgument(f"unable to find group {wanted}: no matching entries in group file")
    return number


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    if number > _HIGHEST:
        raise InvalidArgument(f"uids and gids must be in range 0-{_HIGHEST}")
    return number


def _entries(root: int, path: str, fields: int) -> Iterator[list[str]]:
    """The lines of a passwd(5) or group(5) file that have a usable number in their third field."""
    data = read_in(root, path, _LIMIT) or b""
    for line in data.decode(errors="replace").splitlines():
        entry = line.split(":")
        if (
            len(entry) >= fields
            and len(entry[2]) < 20
            and entry[2].isascii()
            and entry[2].isdigit()
            and int(entry[2]) <= _HIGHEST
        ):
            yield entry

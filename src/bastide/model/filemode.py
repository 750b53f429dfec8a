"""File modes as Docker puts them on the wire: Go's os.FileMode bits (https://pkg.go.dev/io/fs#FileMode)."""

from __future__ import annotations

import stat

_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def go_mode(mode: int) -> int:
    """A Unix mode as Go's FileMode."""
    bits = stat.S_IMODE(mode) & 0o777 | _TYPES.get(stat.S_IFMT(mode), 0)
    return bits | sum(go for unix, go in _BITS.items() if mode & unix)

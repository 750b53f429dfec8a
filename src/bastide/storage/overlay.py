"""The overlay snapshotter: layers and changes are directories, the kernel's overlayfs joins them.

Below `data_root/overlay`: `layers/<hex of the diff id>` is a layer's root; `snapshots/<key>/` holds
`upper`, `work` and `layers` (the diff ids, lowest first, one a line); `staging` what is not finished,
`trash` what is to be deleted. A snapshot is mounted at `run_root/roots/<key>`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bastide.host import mounts
from bastide.host.paths import lstat_below, root_of
from bastide.host.syscalls import blocking, run
from bastide.host.trees import Trash, Worker, measure, spread
from bastide.model.config import Settings
from bastide.model.errors import Conflict, HostError, InvalidArgument, NotFound, Unsupported
from bastide.model.process import DirectoryRoot
from bastide.storage import Info, Snapshotter, Usage

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}\Z")
_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=off")
"""Keep what is written in the form of layers: a changed file is whole, a renamed directory is not a link."""
_CHANGED, _ADDED, _DELETED = 0, 1, 2
_OPAQUE = "trusted.overlay.opaque"


class Overlay(Snapshotter, name="overlay"):
    """Snapshotter and Trees over overlayfs."""

    def __init__(self, settings: Settings, base: Snapshotter | None = None) -> None:
        super().__init__(settings, base)
        self._home = settings.data_root / "overlay"
        self._layers, self._snapshots = self._home / "layers", self._home / "snapshots"
        self._staging = self._home / "staging"
        self._roots = settings.run_root / "roots"
        self._trash = Trash(self._home / "trash")
        self._filling: dict[str, asyncio.Lock] = {}
        self._ends = Worker("overlays")
        self._closing: dict[str, threading.Event] = {}
        self._ready = False
        self._opening = threading.Lock()
        self._mount = mounts.overlay

    def _open(self) -> None:
        """Make the folders and sweep what a crash left; once a process."""
        with self._opening:
            if not self._ready:
                self._sweep()
                self._ready = True

    def _sweep(self) -> None:
        for folder in (self._layers, self._snapshots, self._staging, self._roots):
            # Images hold programs that set the user id: no other user of the host may reach them (CVE-2021-41091).
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        spread(self._staging)
        for number in ("0", "1"):
            (self._home / "empty" / number).mkdir(parents=True, exist_ok=True)
        self._trash.open()
        for path in self._staging.iterdir():
            self._trash.put(path)
        mounts.share(self._roots)
        if not mounts.overlay_takes_many():
            self._mount = mounts.overlay_by_page

    async def probe(self) -> str:
        """Mounts a small overlay and deletes a file through it."""
        if os.geteuid() != 0:
            return "the overlay snapshotter needs root: run the daemon as root"
        try:
            await blocking(self._try)
        except (HostError, OSError) as error:
            return f"overlayfs does not work on {self._home}: {error}; use a data root on ext4 or xfs"
        return ""

    def _try(self) -> None:
        self._open()
        place = self._stage()
        for name in ("lower", "upper", "work", "root"):
            (place / name).mkdir()
        (place / "lower" / "file").touch()
        root = place / "root"
        try:
            self._mount([place / "lower"], place / "upper", place / "work", root, _OPTIONS)
            (root / "file").unlink()
            if not _is_whiteout((place / "upper" / "file").lstat()):
                raise OSError("a deletion left no whiteout")
        finally:
            mounts.unmount(root)
            self._trash.put(place)

    def _stage(self) -> Path:
        place = self._staging / os.urandom(8).hex()
        place.mkdir(mode=0o755)
        return place

    # -- layers --------------------------------------------------------------------------------

    def _layer(self, diff_id: str) -> Path:
        if not _DIFF_ID.match(diff_id):
            raise InvalidArgument(f"invalid diff id {diff_id!r}")
        return self._layers / diff_id.removeprefix("sha256:")

    @contextlib.asynccontextmanager
    async def layer(self, diff_id: str) -> AsyncIterator[Path | None]:
        """One filler at a time for each layer; the rename into place is the commit."""
        final = self._layer(diff_id)
        async with self._filling.setdefault(diff_id, asyncio.Lock()):
            if self.has(diff_id):
                yield None
                return
            await blocking(self._open)
            place = await blocking(self._stage)
            try:
                yield place
                await blocking(place.rename, final)
            except BaseException:
                self._trash.put(place)
                raise

    def has(self, diff_id: str) -> bool:
        """Whether the layer's folder is in place: it comes there whole."""
        return self._layer(diff_id).is_dir()

    # -- snapshots -----------------------------------------------------------------------------

    def _snapshot(self, key: str) -> Path:
        if not _KEY.match(key):
            raise InvalidArgument(f"invalid snapshot name {key!r}")
        return self._snapshots / key

    def _below(self, key: str) -> list[str]:
        """The diff ids below a snapshot. Raises NotFound."""
        try:
            return (self._snapshot(key) / "layers").read_text().split()
        except FileNotFoundError as error:
            raise NotFound(f"no such snapshot: {key}") from error

    async def prepare(self, key: str, layers: Sequence[str], *, size: int = 0) -> DirectoryRoot:
        """See the contract. A size is refused: the host's file system has no quota that we set."""
        if size:
            raise Unsupported("storage option size is not supported by the overlay snapshotter")
        return await blocking(self._prepare, key, layers, True)

    async def view(self, key: str, layers: Sequence[str]) -> Path:
        """See Trees."""
        return (await blocking(self._prepare, key, layers, False)).path

    def _prepare(self, key: str, layers: Sequence[str], writable: bool) -> DirectoryRoot:
        self._open()
        place = self._fill(key, layers, writable)
        self._commit(place, key)
        return self._bring_up(key)

    def _fill(self, key: str, layers: Sequence[str], writable: bool) -> Path:
        final = self._snapshot(key)
        for diff_id in layers:
            if not self.has(diff_id):
                raise NotFound(f"no such layer: {diff_id}")
        if final.exists():
            raise Conflict(f"snapshot {key} exists")
        place = self._stage()
        (place / "layers").write_text("\n".join(layers))
        if writable:
            (place / "work").mkdir(mode=0o700)
            upper = place / "upper"
            upper.mkdir(mode=0o755)
            if layers:
                # The root of the joined tree is the upper one: it must look like the image's.
                top = self._layer(layers[-1]).stat()
                os.chown(upper, top.st_uid, top.st_gid)
                upper.chmod(stat.S_IMODE(top.st_mode))
        return place

    def _commit(self, place: Path, key: str) -> None:
        try:
            place.rename(self._snapshot(key))
        except OSError:
            self._trash.put(place)
            raise

    async def mount(self, key: str) -> DirectoryRoot:
        """See the contract."""
        return await blocking(self._bring_up, key)

    def _bring_up(self, key: str) -> DirectoryRoot:
        layers = self._below(key)
        self._open()
        root = self._roots / key
        if _mounted(root):
            return DirectoryRoot(path=root)
        if ending := self._closing.get(key):
            # Two overlays must not share an upper directory.
            ending.wait()
        root.mkdir(exist_ok=True)
        home = self._snapshot(key)
        lower = [self._layer(diff_id) for diff_id in reversed(layers)]
        spare = [self._home / "empty" / number for number in ("0", "1")]
        if (home / "upper").is_dir():
            self._mount(lower or spare[:1], home / "upper", home / "work", root, _OPTIONS)
        else:
            # An overlay without an upper directory needs two lower ones.
            self._mount([*lower, *spare][: max(2, len(lower))], None, None, root, _OPTIONS[1:])
        return DirectoryRoot(path=root)

    async def unmount(self, key: str) -> None:
        """See the contract."""
        await blocking(self._take_down, key)

    def _take_down(self, key: str) -> None:
        self._snapshot(key)
        root = self._roots / key
        if _mounted(root):
            self._hold(key, root)
        mounts.unmount_all(root)
        with contextlib.suppress(FileNotFoundError):
            root.rmdir()

    def _hold(self, key: str, root: Path) -> None:
        """Keep an overlay alive beyond its unmounting, to end in the background.

        The end of an overlay writes back the whole file system below it (its sync_fs), which takes
        seconds on a busy disk; nobody who stops a container need wait for that.
        """
        fd = os.open(root, os.O_PATH | os.O_CLOEXEC)
        done = self._closing[key] = threading.Event()

        def end() -> None:
            os.close(fd)
            done.set()
            if self._closing.get(key) is done:
                del self._closing[key]

        self._ends.put(end)

    async def remove(self, key: str) -> None:
        """See the contract."""
        if _DIFF_ID.match(key):
            await blocking(self._discard, self._layer(key))
            return
        await blocking(self._take_down, key)
        await blocking(self._discard, self._snapshot(key))

    def _discard(self, path: Path) -> None:
        self._open()
        self._trash.put(path)

    async def usage(self, key: str) -> Usage:
        """Counts the files."""
        folder = self._layer(key) if _DIFF_ID.match(key) else self._snapshot(key) / "upper"
        if not folder.is_dir() and not (_KEY.match(key) and self._snapshot(key).is_dir()):
            raise NotFound(f"no such layer or snapshot: {key}")
        size, inodes = await blocking(measure, folder)
        return Usage(size=size, inodes=inodes)

    async def walk(self) -> AsyncIterator[Info]:
        """What is in place on disk."""
        await blocking(self._open)
        for path in sorted(self._layers.iterdir()):
            yield Info(key=f"sha256:{path.name}", committed=True)
        for path in sorted(self._snapshots.iterdir()):
            try:
                layers = tuple(self._below(path.name))
            except NotFound:
                layers = ()
            yield Info(key=path.name, committed=False, layers=layers)

    # -- trees ---------------------------------------------------------------------------------

    def upper(self, key: str) -> Path:
        """See Trees."""
        return self._snapshot(key) / "upper"

    async def duplicate(self, key: str, new: str) -> DirectoryRoot:
        """See Trees. Blocks are shared with the original where the file system can."""
        layers = self._below(key)
        place = await blocking(self._fill, new, layers, True)
        try:
            copied = await run(
                ["cp", "--archive", "--reflink=auto", "--", f"{self.upper(key)}/.", place / "upper"], timeout=3600
            )
            if copied.code:
                raise HostError("cp", 5, copied.complaint)
        except BaseException:
            self._trash.put(place)
            raise
        await blocking(self._commit, place, new)
        return await self.mount(new)

    async def changes(self, key: str) -> list[tuple[int, str]]:
        """See Trees."""
        view = f"changes-{os.urandom(8).hex()}"
        lower = await self.view(view, self._below(key))
        try:
            return await blocking(_changes, self.upper(key), lower)
        finally:
            await self.remove(view)


def _mounted(root: Path) -> bool:
    """Whether something is mounted at a directory: an overlay is a device of its own."""
    try:
        return root.stat().st_dev != root.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _changes(upper: Path, lower: Path) -> list[tuple[int, str]]:
    """What `upper` does to `lower`, with every directory above a change, as `docker diff` shows it."""
    found: dict[str, int] = {}
    with root_of(lower) as below:
        for folder, names, files in os.walk(upper):
            inside = folder[len(str(upper)) :]
            if inside and _is_opaque(folder):
                _hidden(below, lower, inside, {*names, *files}, found)
            for name in (*names, *files):
                path = f"{inside}/{name}"
                kind = _change(below, path, os.lstat(f"{folder}/{name}"))
                if kind is not None:
                    found[path] = kind
    for path in list(found):
        while (path := path.rpartition("/")[0]) and path not in found:
            found[path] = _CHANGED
    return sorted(((kind, path) for path, kind in found.items()), key=lambda change: change[1])


def _change(below: int, path: str, new: os.stat_result) -> int | None:
    old = lstat_below(below, path)
    if _is_whiteout(new):
        return _DELETED if old else None
    if old is None:
        return _ADDED
    same_directory = stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(new.st_mode)
    if same_directory and (old.st_mtime_ns, old.st_mode, old.st_uid, old.st_gid) == (
        new.st_mtime_ns,
        new.st_mode,
        new.st_uid,
        new.st_gid,
    ):
        return None
    return _CHANGED


def _is_opaque(folder: str) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError:
        return False


def _hidden(below: int, lower: Path, inside: str, kept: set[str], found: dict[str, int]) -> None:
    """What an opaque directory hides of the one below it is deleted."""
    old = lstat_below(below, inside)
    if old is None or not stat.S_ISDIR(old.st_mode):
        return
    for name in os.listdir(f"{lower}{inside}"):
        if name not in kept:
            found[f"{inside}/{name}"] = _DELETED

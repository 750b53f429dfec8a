"""`RUN --mount`: each one made ready on the host, in a private memory file system, for the time of its step.

A source is looked up by the kernel with its tree as the root, then cloned by descriptor: a link in a
context, a stage or a cache leads nowhere else, whoever changes it meanwhile (CVE-2024-1753, CVE-2024-23651).
Secrets lie in memory alone, where only root gets.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
import stat
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from bastide.engine.build.options import Options
from bastide.engine.build.sources import Found, Tree
from bastide.host import mounts
from bastide.host.paths import open_in
from bastide.host.syscalls import blocking, run
from bastide.host.trees import Trash, measure
from bastide.images.dockerfile.mounts import StepMount
from bastide.model.container import Mount, TmpfsOptions
from bastide.model.errors import HostError, InvalidArgument, NotFound, Unsupported

_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_MEMORY = "mode=0700,size=64m"


class CacheMounts:
    """Directories that outlive builds (`type=cache`), by the digest of their ids."""

    def __init__(self, home: Path, trash: Trash) -> None:
        self._home, self._trash = home, trash
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    async def lock(self, wanted: Iterable[StepMount], until: AsyncExitStack) -> None:
        """Wait until nobody else has the locked ones of a step; in one order, so that no steps wait in a ring."""
        names = {_name(mount) for mount in wanted if mount.kind == "cache" and mount.sharing == "locked"}
        for name in sorted(names):
            await until.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))

    async def take(self, mount: StepMount, until: AsyncExitStack) -> tuple[Path, bool]:
        """The directory of a mount, and whether it is new. It is in use until the stack ends."""
        name = _name(mount)
        if mount.sharing == "private":
            plain, count = name, 0
            while self._users.get(name):
                count += 1
                name = f"{plain}-{count}"
        self._users[name] = self._users.get(name, 0) + 1
        until.callback(self._leave, name)
        path = self._home / name
        return path, await blocking(_make_cache, path, mount)

    def _leave(self, name: str) -> None:
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]

    def usage(self) -> list[tuple[str, int, bool, float]]:
        """Name, bytes, whether in use, and time of the last change, of each. Blocks."""
        if not self._home.is_dir():
            return []
        return [
            (path.name, measure(path)[0], path.name in self._users, path.stat().st_mtime)
            for path in sorted(self._home.iterdir())
        ]

    def remove(self, name: str) -> None:
        """Forget one that nobody uses."""
        if name not in self._users:
            self._trash.put(self._home / name)


def _name(mount: StepMount) -> str:
    return hashlib.sha256(mount.id.encode()).hexdigest()


def _make_cache(path: Path, mount: StepMount) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return False
    os.chown(path, mount.uid, mount.gid)
    path.chmod(0o755 if mount.mode is None else mount.mode)
    return True


Origin = Callable[[str], Awaitable[Path]]
"""Gives the root of a stage or image by its name."""


class Mounts:
    """Makes the mounts of one build. `place` is its folder in the run root, `scratch` one in the data root."""

    def __init__(self, options: Options, place: Path, scratch: Path, caches: CacheMounts) -> None:
        self._options, self._place, self._scratch, self._caches = options, place, scratch, caches
        self._ready: asyncio.Lock = asyncio.Lock()
        self._mounted = False
        self._count = 0

    async def _spot(self) -> Path:
        """A free name in the private memory file system."""
        async with self._ready:
            if not self._mounted:
                await blocking(_mount_memory, self._place)
                self._mounted = True
        self._count += 1
        return self._place / f"{self._count}"

    async def close(self) -> None:
        """Take the file system down with everything that is in it."""
        if self._mounted:
            await blocking(mounts.unmount_all, self._place)
            await blocking(self._place.rmdir)

    async def prepare(
        self, wanted: list[StepMount], workdir: str, context: Path, origin: Origin, until: AsyncExitStack
    ) -> tuple[list[Mount], dict[str, str]]:
        """The mounts to ask for, and variables of the step's environment. They last until the stack ends.

        Raises InvalidArgument, NotFound (a source, a required secret), Unsupported, HostError.
        """
        made: list[Mount] = []
        env: dict[str, str] = {}
        await self._caches.lock(wanted, until)
        for number, mount in enumerate(wanted):
            target = posixpath.join("/", workdir, mount.target)
            if mount.kind == "tmpfs":
                made.append(
                    Mount(
                        type="tmpfs",
                        target=target,
                        tmpfs_options=TmpfsOptions(size_bytes=mount.size, options=[["exec"]]),
                    )
                )
                continue
            source: Path | None
            if mount.kind == "bind":
                source = await self._bind(mount, context, origin, until)
            elif mount.kind == "cache":
                source = await self._cache(mount, origin, until)
            elif mount.kind == "secret":
                source = await self._secret(mount)
            else:
                source = await self._agent(mount)
                if source is not None:
                    target = posixpath.join("/", workdir, mount.target or f"/run/buildkit/ssh_agent.{number}")
                    env["SSH_AUTH_SOCK"] = target
            if source is not None:
                made.append(Mount(type="bind", source=str(source), target=target, read_only=mount.read_only))
        return made, env

    async def script(self, text: str) -> Path:
        """A here-document that is a program, as a file."""
        spot = await self._spot()
        await blocking(_write, spot, text.encode(), 0o755, 0, 0)
        return spot

    # -- kinds ---------------------------------------------------------------------------------

    async def _bind(self, mount: StepMount, context: Path, origin: Origin, until: AsyncExitStack) -> Path:
        root = await origin(mount.origin) if mount.origin else context
        if not mount.read_only:
            root = await self._writable(root, until)
        return await self._graft(root, mount.source or "/", until)

    async def _writable(self, root: Path, until: AsyncExitStack) -> Path:
        """A view of a tree that takes writes and forgets them."""
        place = self._scratch / os.urandom(8).hex()
        upper, work = place / "upper", place / "work"
        for folder in (upper, work):
            await blocking(folder.mkdir, parents=True, mode=0o755)
        found = root.stat()
        upper.chmod(stat.S_IMODE(found.st_mode))
        spot = await self._spot()
        spot.mkdir()

        async def away() -> None:
            await blocking(mounts.unmount_all, spot)
            await run(["rm", "-rf", "--one-file-system", "--", place])

        until.push_async_callback(away)
        await blocking(mounts.overlay_by_page, [root], upper, work, spot, ("index=off",))
        return spot

    async def _cache(self, mount: StepMount, origin: Origin, until: AsyncExitStack) -> Path:
        path, new = await self._caches.take(mount, until)
        if new and mount.origin:
            await self._fill(path, await origin(mount.origin), mount.source or "/")
        inner = mount.source if mount.source and not mount.origin else "/"
        return await self._graft(path, inner, until)

    async def _fill(self, path: Path, root: Path, inner: str) -> None:
        fd = await blocking(_open_source, root, inner)
        try:
            source = f"/proc/self/fd/{fd}/."
            done = await run(["cp", "--archive", "--no-target-directory", source, path], pass_fds=[fd], timeout=3600)
        finally:
            os.close(fd)
        if done.code:
            raise HostError("cp", 5, f"into a cache mount ({done.complaint})")

    async def _graft(self, root: Path, inner: str, until: AsyncExitStack) -> Path:
        """What is at `inner` in a tree, mounted at a place of ours."""
        spot = await self._spot()

        async def away() -> None:
            await blocking(mounts.unmount_all, spot)

        until.push_async_callback(away)
        await blocking(_attach, root, inner, spot)
        return spot

    async def _secret(self, mount: StepMount) -> Path | None:
        value = self._options.secrets.get(mount.id)
        if value is None:
            if mount.required:
                raise NotFound(f"secret {mount.id}: not found: give it with --secret id={mount.id},src=FILE")
            return None
        spot = await self._spot()
        await blocking(_write, spot, value, 0o400 if mount.mode is None else mount.mode, mount.uid, mount.gid)
        return spot

    async def _agent(self, mount: StepMount) -> Path | None:
        path = self._options.agents.get(mount.id)
        if path is None:
            if mount.required:
                raise NotFound(f"unset ssh forward key {mount.id}: give it with --ssh {mount.id}")
            return None
        if mount.uid or mount.gid or mount.mode not in (None, 0o600):
            raise Unsupported(
                "RUN --mount=type=ssh with uid, gid or mode is not offered: the socket is the agent's own"
            )
        try:
            known = stat.S_ISSOCK(Path(path).stat().st_mode)
        except OSError as error:
            raise HostError("stat", error.errno or 0, path) from error
        if not known:
            raise InvalidArgument(f"--ssh {mount.id}: {path} is no socket of an agent")
        return Path(path)


def digest(root: int, source: str) -> str:
    """What stands for a bind mount's source in a cache key. Blocks."""
    path = posixpath.normpath("/" + source).lstrip("/")
    return Tree(root).digest(Found(path, posixpath.basename(path)))


def _mount_memory(place: Path) -> None:
    place.mkdir(parents=True, mode=0o700)
    mounts.mount("tmpfs", place, "tmpfs", _NOSUID | _NODEV, _MEMORY)


def _open_source(root: Path, inner: str) -> int:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_in(top, inner, os.O_PATH)
    except OSError as error:
        raise NotFound(f"mount source not found: {inner}: {error.strerror}") from error
    finally:
        os.close(top)


def _attach(root: Path, inner: str, spot: Path) -> None:
    fd = _open_source(root, inner)
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            spot.mkdir()
        elif stat.S_ISREG(kind):
            spot.touch()
        else:
            raise InvalidArgument(f"mount source {inner} is neither a file nor a directory")
        tree = mounts.clone(fd, recursive=False)
    finally:
        os.close(fd)
    try:
        mounts.attach(tree, spot)
    finally:
        os.close(tree)


def _write(path: Path, data: bytes, mode: int, uid: int, gid: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)

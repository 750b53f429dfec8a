"""Files from elsewhere: ADD of a URL or a git repository, and contexts that are one of these.

What a Dockerfile names is fetched by the daemon, as Docker does; only http, https and git are spoken, and a
redirect to anything else is refused.
"""

from __future__ import annotations

import email.utils
import errno
import hashlib
import os
import posixpath
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from bastide.host.paths import open_in, root_of
from bastide.host.syscalls import blocking, run
from bastide.images.archive import Owner, unpack_plain
from bastide.images.compression import kind_of
from bastide.images.digest import is_digest
from bastide.model.errors import HostError, InvalidArgument, NotFound, Unavailable

SIZE_LIMIT = 8 << 30
"""Bytes of one file."""
_SECONDS = 3600.0
_SILENCE = 60.0
_PIECE = 1 << 20
_GIT = re.compile(r"(git://|git@|ssh://git@)|https?://[^?#]+\.git(#.*)?$")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A file that came: its place, its name by its URL, its digest."""

    path: Path
    name: str
    digest: str


def is_url(source: str) -> bool:
    """Whether ADD fetches a source over HTTP."""
    return source.startswith(("http://", "https://"))


def is_git(source: str) -> bool:
    """Whether a source is a git repository."""
    return _GIT.match(source) is not None or source.startswith("github.com/")


async def download(url: str, folder: Path, checksum: str = "") -> Fetched:
    """The file at a URL. Its time is what the server says, its mode 0600 (Dockerfile reference, ADD).

    Raises InvalidArgument (URL, checksum), NotFound, Unavailable.
    """
    import aiohttp

    if checksum and not is_digest(checksum):
        raise InvalidArgument(f"invalid or unsupported checksum {checksum!r}: sha256:<64 hexadecimal digits> is needed")
    timeout = aiohttp.ClientTimeout(total=_SECONDS, sock_read=_SILENCE, sock_connect=_SILENCE)
    path = folder / os.urandom(8).hex()
    try:
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            async with session.get(url, max_redirects=10, headers={"Accept-Encoding": "identity"}) as response:
                if response.url.scheme not in ("http", "https"):
                    raise InvalidArgument(f"{url} leads to {response.url.scheme}, which is not fetched")
                if response.status >= 400:
                    raise NotFound(f"failed to load {url}: the server said {response.status} {response.reason}")
                digest = await _save(response, path, url)
                await blocking(_stamp, path, response.headers.get("Last-Modified", ""))
                name = _name(url, str(response.url), response.headers.get("Content-Disposition", ""))
        if checksum and digest != checksum:
            raise InvalidArgument(f"digest mismatch {digest} of {url}: {checksum} was expected")
    except BaseException as error:
        await blocking(path.unlink, missing_ok=True)
        if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
            raise Unavailable(f"failed to load {url}: {error or type(error).__name__}") from error
        raise
    return Fetched(path=path, name=name, digest=digest)


async def _save(response: object, path: Path, url: str) -> str:
    import aiohttp

    assert isinstance(response, aiohttp.ClientResponse)
    found, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        path.chmod(0o600)
        async for piece in response.content.iter_chunked(_PIECE):
            size += len(piece)
            if size > SIZE_LIMIT:
                raise InvalidArgument(f"{url} has more than {SIZE_LIMIT} bytes")
            found.update(piece)
            await blocking(file.write, piece)
    return "sha256:" + found.hexdigest()


def _stamp(path: Path, modified: str) -> None:
    """The server's time; the beginning of time when it says none, so that the digest of a layer stays the same."""
    moment = 0.0
    if modified:
        try:
            moment = email.utils.parsedate_to_datetime(modified).timestamp()
        except (ValueError, OverflowError):
            moment = 0.0
    os.utime(path, (moment, moment))


def _name(url: str, final: str, disposition: str) -> str:
    """What the file is called: the last part of the URL's path. Raises InvalidArgument when it has none."""
    match = re.search(r'filename="?([^";]+)"?', disposition)
    for candidate in (posixpath.basename(unquote(urlsplit(url).path)), match[1] if match else ""):
        name = posixpath.basename(candidate)
        if name not in ("", ".", "..") and "\0" not in name:
            return name
    raise InvalidArgument(f"cannot determine filename for source {final}: give a target that is a file")


async def clone(source: str, target: Path, *, keep_git: bool) -> str:
    """A git repository at `URL[#REVISION[:FOLDER]]` into the empty directory `target`; gives the commit.

    Raises InvalidArgument, NotFound (the folder), Unavailable. Hooks, submodules, filters and local paths of the
    repository are not used.
    """
    url, _, fragment = source.partition("#")
    revision, _, inner = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if url.startswith("-") or (revision and not _REVISION.fullmatch(revision)) or ".." in revision:
        raise InvalidArgument(f"invalid git source {source!r}")
    place = target.with_name(f"{target.name}.git") if inner else target
    try:
        await blocking(place.mkdir, mode=0o700, exist_ok=True)
        commit = await _fetch(place, url, revision or "HEAD")
        if not keep_git or inner:
            await blocking(shutil.rmtree, place / ".git")
        if inner:
            await _take_folder(place, inner, target)
    finally:
        if inner:
            await blocking(shutil.rmtree, place, ignore_errors=True)
    return commit


async def _fetch(place: Path, url: str, revision: str) -> str:
    commands = [
        ["init", "--quiet"],
        ["fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", url, revision],
        ["checkout", "--quiet", "--detach", "FETCH_HEAD"],
        ["rev-parse", "HEAD"],
    ]
    said = b""
    for command in commands:
        try:
            done = await run(_git(place, command), env=_environment(), timeout=_SECONDS)
        except HostError as error:
            raise Unavailable(f"git cannot be run ({error}): install git to build from repositories") from error
        if done.code:
            raise Unavailable(f"git {command[0]} of {url}: {done.complaint}")
        said = done.stdout
    return said.decode().strip()


async def _take_folder(place: Path, inner: str, target: Path) -> None:
    """Copy one folder of a tree; links lead nowhere else."""

    def find() -> int:
        with root_of(place) as root:
            return open_in(root, inner, os.O_PATH | os.O_DIRECTORY)

    try:
        fd = await blocking(find)
    except HostError as error:
        raise NotFound(f"the repository has no folder {inner}") from error
    try:
        words = ["cp", "--archive", "--no-target-directory", f"/proc/self/fd/{fd}/.", str(target)]
        done = await run(words, pass_fds=[fd], timeout=_SECONDS)
    finally:
        os.close(fd)
    if done.code:
        raise HostError("cp", errno.EIO, done.complaint)


def _git(folder: Path, command: list[str]) -> list[str]:
    return [
        "git",
        f"--git-dir={folder}/.git",
        f"--work-tree={folder}",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "protocol.file.allow=never",
        "-c",
        "protocol.ext.allow=never",
        "-c",
        "core.symlinks=true",
        *command,
    ]


def _environment() -> dict[str, str]:
    """Nothing of the daemon's own configuration, and nobody to ask for a password."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }


async def remote_context(source: str, place: Path) -> None:
    """A context from elsewhere: a repository, an archive, or a Dockerfile alone. Raises as the two above."""
    if is_git(source):
        await clone(source, place, keep_git=False)
        return
    if not is_url(source):
        raise InvalidArgument(f"invalid remote context {source!r}: http, https and git are known")
    fetched = await download(source, place.parent)
    try:
        await blocking(_open_context, fetched.path, place)
    finally:
        await blocking(fetched.path.unlink)


def _open_context(file: Path, place: Path) -> None:
    start = file.open("rb").read(512)
    if not (kind_of(start[:6]) or start[257:262] == b"ustar"):
        (place / "Dockerfile").write_bytes(file.read_bytes())
        return
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with file.open("rb", buffering=0) as source:
            unpack_plain(iter(lambda: source.read(_PIECE), b""), root, ".", owner=Owner(0, 0))
    finally:
        os.close(root)

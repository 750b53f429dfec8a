"""`bastide cp`: files between a container and this host, by docker's rules.

The rules (docker's reference, "docker container cp"): a source that ends in `/.` means the content of a
folder; a target that is a folder receives the source under its own name; any other target is the new
name; a target that ends in `/` must be a folder.
"""

from __future__ import annotations

import os

from bastide.cli.grammar import SWITCH, Command, CommandError, Options
from bastide.cli.show import text, units
from bastide.model.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bastide.client import Client, Object

# Bits of Go's io/fs.FileMode.
_IS_FOLDER, _IS_LINK = 1 << 31, 1 << 27


def split(argument: str) -> tuple[str, str]:
    """Container and path of an argument; the container is "" for a local path."""
    if argument == "-" or argument.startswith(("/", ".")):
        return "", argument
    container, colon, path = argument.partition(":")
    return (container, path) if colon else ("", argument)


def cp(client: Client, options: Options) -> int:
    """Copy from a container, or to one."""
    (source, source_path), (target, target_path) = (split(argument) for argument in options.arguments)
    if source and target:
        raise CommandError("copying between containers is not supported")
    if not source and not target:
        raise CommandError("must specify at least one container source")
    quiet = options.on("quiet") or not os.isatty(2)
    counter = _Counter()
    if source:
        _from(client, source, source_path, target_path, options, counter)
    else:
        _to(client, target, source_path, target_path, options, counter)
    if not quiet and "-" not in (source_path, target_path):
        where = f"from {source}" if source else f"to {target}:{target_path}"
        text.err(f"Successfully copied {units.human_size(counter.size, 3)} {where}")
    return 0


class _Counter:
    """How many bytes went by."""

    def __init__(self) -> None:
        self.size = 0

    def count(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.size += len(block)
            yield block


def _content_only(path: str) -> bool:
    return path.endswith("/.") or path == "."


def _from(client: Client, container: str, source: str, target: str, options: Options, counter: _Counter) -> None:
    source = source or "/"
    if options.on("follow-link"):
        details = client.containers.stat(container, source)
        if details["mode"] & _IS_LINK:
            source, _ = _followed(client, container, source, details)
    response = client.containers.get_archive(container, source)
    if target == "-":
        for block in response.blocks():
            text.write(1, block)
        return
    from bastide.cli import archives

    details = client.containers.described(response)
    folder = bool(details["mode"] & _IS_FOLDER)
    base, name = _local_place(target, source, folder=folder)
    old = details["name"].rstrip("/") or "/"

    def rename(entry: str) -> str:
        first, _, rest = entry.lstrip("/").partition("/")
        if old == "/" or first in (".", ""):
            return f"{name}/{entry}"
        return f"{name}/{rest}"

    archives.unpack(counter.count(response.blocks()), base, rename, owner=options.on("archive"))


def _local_place(target: str, source: str, *, folder: bool) -> tuple[str, str]:
    """The local folder to unpack in, and the name of the copy there ("" for the content of a folder)."""
    name = os.path.basename(source.rstrip("/"))
    if os.path.isdir(target):
        return target, "" if folder and _content_only(source) else name
    if target.endswith("/") and not (folder and not os.path.lexists(target.rstrip("/"))):
        raise CommandError(f"no such directory: {target}")
    if os.path.lexists(target) and folder:
        raise CommandError("cannot copy directory to a file")
    parent, new = os.path.split(os.path.abspath(target))
    if not os.path.isdir(parent):
        raise CommandError(f"invalid output path: directory {parent!r} does not exist")
    return parent, new


def _followed(client: Client, container: str, path: str, details: Object) -> tuple[str, Object]:
    """Where a link in a container leads; the daemon resolves everything before the last part."""
    link = str(details["linkTarget"])
    if not link.startswith("/"):
        link = os.path.join(os.path.dirname(path.rstrip("/")) or "/", link)
    return link, client.containers.stat(container, link)


def _to(client: Client, container: str, source: str, target: str, options: Options, counter: _Counter) -> None:
    target = target or "/"
    if source != "-" and not os.path.lexists(source):
        raise CommandError(f"lstat {source}: no such file or directory")
    details = _target(client, container, target)
    if details is not None and details["mode"] & _IS_LINK:
        try:
            target, details = _followed(client, container, target, details)
        except NotFound:
            target, details = str(details["linkTarget"]), None
    query = {"noOverwriteDirNonDir": True, "copyUIDGID": options.on("archive")}
    into_folder = details is not None and bool(details["mode"] & _IS_FOLDER)
    if source == "-":
        if not into_folder:
            raise CommandError(f'destination "{container}:{target}" must be a directory')
        from bastide.cli.verbs import load

        client.containers.put_archive(container, target, load.read("-"), query)
        return
    from bastide.cli import archives

    path = os.path.realpath(source) if options.on("follow-link") or _content_only(source) else source.rstrip("/") or "/"
    folder = os.path.isdir(path) and not os.path.islink(path)
    base, name = _far_place(container, source, target, details, folder=folder)
    client.containers.put_archive(container, base, counter.count(archives.pack(archives.walk(path, name))), query)


def _target(client: Client, container: str, target: str) -> Object | None:
    try:
        return client.containers.stat(container, target)
    except NotFound:
        return None  # whether the container or the path is missing, the copy itself will tell


def _far_place(container: str, source: str, target: str, details: Object | None, *, folder: bool) -> tuple[str, str]:
    """The folder in the container to unpack in, and the name of the copy there."""
    if details is not None and details["mode"] & _IS_FOLDER:
        name = os.path.basename(os.path.abspath(source))
        return target, "." if folder and _content_only(source) else name
    if details is not None and folder:
        raise CommandError(f'cannot copy directory to file "{container}:{target}"')
    if target.endswith("/") and not (folder and details is None):
        raise CommandError(f'no such directory: "{container}:{target}"')
    parent, _, name = target.rstrip("/").rpartition("/")
    return parent or "/", name


COMMAND = Command(
    cp,
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    (
        ("archive", "a", SWITCH, "Keep the owner and the group"),
        ("follow-link", "L", SWITCH, "Always follow a symbolic link in SRC_PATH"),
        ("quiet", "q", SWITCH, "Do not say how much was copied"),
    ),
    2,
    2,
    details="A '-' as source reads a tar archive from stdin; as target it writes one to stdout.",
    examples=(
        ("cp web:/etc/nginx/nginx.conf .", "a file out of a container"),
        ("cp ./site/. web:/srv/www", "the content of a folder into one"),
    ),
)

"""The context of a build: which files go to the daemon, by `.dockerignore`."""

from __future__ import annotations

import os

from bastide.cli.grammar import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Ignore:
    """The patterns of a `.dockerignore`: the last one that fits decides; `!` lets a path in again.

    Source of the rules: docker's reference, "dockerignore file" (Go's filepath.Match with `**`).
    """

    def __init__(self, lines: list[str]) -> None:
        self._rules: list[tuple[bool, list[str]]] = []
        for line in lines:
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            keep = pattern.startswith("!")
            parts = [part for part in pattern.removeprefix("!").strip().split("/") if part not in ("", ".")]
            if parts:
                self._rules.append((keep, parts))
        self.exceptions = any(keep for keep, _ in self._rules)

    def out(self, path: str) -> bool:
        """Whether a path (relative, with `/`) stays out; a folder's rule counts for all below it."""
        parts = path.split("/")
        ignored = False
        for keep, pattern in self._rules:
            if any(_fits(pattern, parts[:size]) for size in range(1, len(parts) + 1)):
                ignored = not keep
        return ignored


def _fits(pattern: list[str], parts: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(pattern[1:], parts[skip:]) for skip in range(len(parts) + 1))
    return bool(parts) and _name_fits(pattern[0], parts[0]) and _fits(pattern[1:], parts[1:])


def _name_fits(pattern: str, name: str) -> bool:
    """One component: `*`, `?` and `[…]` as Go's filepath.Match has them."""
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern.replace("[^", "[!"))


def read(folder: str, dockerfile: str) -> Ignore:
    """`Dockerfile.dockerignore` beside the Dockerfile, else the folder's `.dockerignore`."""
    for path in (f"{dockerfile}.dockerignore", f"{folder}/.dockerignore"):
        try:
            with open(path, encoding="utf-8") as file:
                return Ignore(file.read().removeprefix("\ufeff").splitlines())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"could not read {path}: {error}") from error
    return Ignore([])


def entries(folder: str, ignore: Ignore, needed: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Files of the context as pairs of a local path and a name; `needed` names go whatever is ignored."""
    pending = [""]
    while pending:
        below = pending.pop()
        prefix = f"{below}/" if below else ""
        try:
            names = sorted(os.listdir(f"{folder}/{below}"))
        except OSError as error:
            raise CommandError(f"can't stat the context: {error.strerror}: {error.filename}") from error
        for name in names:
            path = f"{prefix}{name}"
            local = f"{folder}/{path}"
            directory = os.path.isdir(local) and not os.path.islink(local)
            ignored = ignore.out(path) and path not in needed
            if directory and (not ignored or ignore.exceptions or any(n.startswith(f"{path}/") for n in needed)):
                pending.append(path)
            if not ignored:
                yield local, path

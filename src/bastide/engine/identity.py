"""Ids and names of containers: how they are made, checked and found."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from bastide.model.container import Container
from bastide.model.errors import InvalidArgument, NotFound

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_HEX = re.compile(r"[0-9a-f]{1,64}")

_ADJECTIVES = (
    "agile ample apt arch bold brave brisk calm clear civic deft eager early even fair fine firm fleet fond frank "
    "free fresh glad grand hale happy hardy high ideal jolly just keen kind lithe loyal lucid merry mild neat "
    "noble open pale plain prime proud pure quick quiet rapid ready regal rich ripe safe sage sharp smart solid "
    "sound spry stark stout sunny sure swift tall tidy true vast vivid warm wise witty young zesty"
).split()
_PLACES = (
    "aigues arles arras bergues besancon blaye bonaguil bourges briancon cahors carcassonne castillon chinon "
    "cluny concarneau cordes domme eymet foix fougeres gordes guerande josselin langres laon libourne loches "
    "lourdes lucheux mirande monpazier montreal najac narbonne neuf perouges pouzol provins puivert quimper "
    "rocamadour sarlat saumur sedan senlis sisteron tarascon tonnerre uzes vannes vezelay villefranche vincennes "
    "vitre"
).split()


def new_id() -> str:
    """64 random hexadecimal digits; never all decimal in the first twelve, so that a short id is no number."""
    while True:
        made = secrets.token_hex(32)
        if not made[:12].isdigit():
            return made


def new_name(taken: Iterable[str]) -> str:
    """A free name of an adjective and a fortified town."""
    used = set(taken)
    while True:
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_PLACES)}"
        if name in used:
            name += str(secrets.randbelow(1000))
        if name not in used:
            return name


def check_name(name: str) -> str:
    """The name without its leading slash. Raises InvalidArgument in Docker's words."""
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare) or len(bare) > 255:
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


class Index:
    """Containers by id, name and unique prefix of the id."""

    def __init__(self) -> None:
        self._by_name: dict[str, str] = {}
        self._ids: dict[str, Container] = {}

    def put(self, container: Container) -> None:
        """Add a container or replace its record (a rename included)."""
        old = self._ids.get(container.id)
        if old is not None and old.name != container.name:
            self._by_name.pop(old.name, None)
        self._ids[container.id] = container
        self._by_name[container.name] = container.id

    def discard(self, container_id: str) -> None:
        """Forget a container."""
        old = self._ids.pop(container_id, None)
        if old is not None and self._by_name.get(old.name) == container_id:
            del self._by_name[old.name]

    def named(self, name: str) -> Container | None:
        """The container of exactly this name."""
        found = self._by_name.get(name)
        return self._ids.get(found) if found else None

    def names(self) -> Iterable[str]:
        """All names in use."""
        return self._by_name

    def values(self) -> list[Container]:
        """All containers."""
        return list(self._ids.values())

    def find(self, reference: str) -> Container:
        """By full id, then name, then unique prefix of an id. Raises NotFound, InvalidArgument."""
        if not reference:
            raise InvalidArgument("a container's name or id is needed")
        found = self._ids.get(reference) or self.named(reference.removeprefix("/"))
        if found is not None:
            return found
        if _HEX.fullmatch(reference):
            matches = [c for key, c in self._ids.items() if key.startswith(reference)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise InvalidArgument(f"Multiple IDs found with provided prefix: {reference}")
        raise NotFound(f"No such container: {reference}")

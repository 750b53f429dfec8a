"""Filters of `images` and `image prune`, as the Docker Engine API 1.47 has them."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from bastide.api.times import epoch, moment
from bastide.images.reference import Reference
from bastide.model.errors import InvalidArgument
from bastide.model.image import Image

if TYPE_CHECKING:
    from bastide.engine.images import Images


class Selection:
    """Which images, and which of their names, are shown."""

    def __init__(self, images: Images, filters: dict[str, list[str]]) -> None:
        self._images = images
        self._labels = filters.get("label", [])
        self._without = filters.get("label!", [])
        self._patterns = filters.get("reference", [])
        self._dangling = self._truth(filters.get("dangling"))
        self._since = max((epoch(images.get(name).created) for name in filters.get("since", [])), default=None)
        self._before = min((epoch(images.get(name).created) for name in filters.get("before", [])), default=None)
        until = filters.get("until", [])
        if len(until) > 1:
            raise InvalidArgument("more than one until filter specified")
        self._until = moment(until[0], name="until") if until else 0

    @staticmethod
    def _truth(values: list[str] | None) -> bool | None:
        if not values:
            return None
        if values[-1].lower() in ("1", "true"):
            return True
        if values[-1].lower() in ("0", "false"):
            return False
        raise InvalidArgument(f"invalid filter 'dangling=[{values[-1]}]'")

    def names(self, image: Image) -> tuple[list[str], list[str]] | None:
        """The tags and digests to show; None when the image is not to be shown."""
        if not self.matches(image):
            return None
        found = [name for name in self._images.named(image.id) if self._fits(name)]
        tags = [name.familiar for name in found if not name.digest]
        digests = [name.familiar for name in found if name.digest]
        dangling = not any(not name.digest for name in self._images.named(image.id))
        if self._dangling is not None and dangling is not self._dangling:
            return None
        return None if self._patterns and not found else (tags, digests)

    def _fits(self, name: Reference) -> bool:
        """As Go's path.Match on the name people write, with or without its tag."""
        if not self._patterns:
            return True
        candidates = (name.familiar, name.familiar_name, str(name), name.name)
        return any(
            candidate.count("/") == pattern.count("/") and fnmatch.fnmatchcase(candidate, pattern)
            for pattern in self._patterns
            for candidate in candidates
        )

    def matches(self, image: Image) -> bool:
        """What does not depend on names."""
        labels = image.config.labels or {}
        if not all(_labelled(labels, wanted) for wanted in self._labels):
            return False
        if any(_labelled(labels, unwanted) for unwanted in self._without):
            return False
        created = epoch(image.created)
        if self._since is not None and created <= self._since:
            return False
        if self._before is not None and created >= self._before:
            return False
        return not self._until or created <= self._until


def _labelled(labels: dict[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)

"""References to images, read and written as Docker does (github.com/distribution/reference).

`debian` means `docker.io/library/debian:latest`. Short names always mean Docker Hub: no search list
and no alias can send them elsewhere.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from bastide.images.digest import is_digest
from bastide.model.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library"
NAME_LIMIT = 255
"""Characters of a repository name, as in Docker."""

_SEPARATOR = r"(?:[._]|__|-+)"
_COMPONENT = rf"[a-z0-9]+(?:{_SEPARATOR}[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """A full reference: `domain/path[:tag][@digest]`."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository with its registry: `docker.io/library/debian`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: `debian`; whole where the short form would be read as another."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        first, slash, rest = self.path.partition("/")
        short = rest if slash and first == _OFFICIAL and "/" not in rest else self.path
        same = _split_domain(short) == (self.domain, self.path) and not _HEXADECIMAL.fullmatch(short)
        return short if same else self.name

    @property
    def familiar(self) -> str:
        """The reference as people write it: `debian:12`."""
        return self.familiar_name + self._ending()

    def _ending(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._ending()

    def tagged(self) -> Reference:
        """With `latest` where neither a tag nor a digest was given."""
        return self if self.tag or self.digest else self.with_tag("latest")

    def with_tag(self, tag: str) -> Reference:
        """The same repository with this tag and no digest. Raises InvalidArgument."""
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f'invalid tag format: "{tag}"')
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> Reference:
        """The same repository with this digest and no tag. Raises InvalidArgument."""
        if not is_digest(digest):
            raise InvalidArgument(f'invalid digest format: "{digest}"')
        return Reference(self.domain, self.path, "", digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    local = not any(sign in first for sign in ".:") and first != "localhost" and first.lower() == first
    if not slash or local:
        domain, rest = DEFAULT_DOMAIN, text
    else:
        domain = DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"{_OFFICIAL}/{rest}"
    return domain, rest


@lru_cache(maxsize=4096)
def parse(text: str) -> Reference:
    """A reference as a user writes it. Raises InvalidArgument with Docker's text."""
    if _HEXADECIMAL.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    rest, at, digest = rest.partition("@")
    path, colon, tag = rest.partition(":")
    if path != path.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    well_formed = (
        _DOMAIN.fullmatch(domain)
        and _PATH.fullmatch(path)
        and (not colon or _TAG.fullmatch(tag))
        and (not at or is_digest(digest))
    )
    if not well_formed:
        raise InvalidArgument("invalid reference format")
    if len(domain) + 1 + len(path) > NAME_LIMIT:
        raise InvalidArgument(
            f"invalid reference format: repository name must not be more than {NAME_LIMIT} characters"
        )
    return Reference(domain, path, tag, digest)


def parse_repository(text: str) -> Reference:
    """A reference that may carry neither tag nor digest (`docker tag`'s `repo`). Raises InvalidArgument."""
    found = parse(text)
    if found.tag or found.digest:
        raise InvalidArgument("invalid reference format: a repository name without tag and digest is needed")
    return found

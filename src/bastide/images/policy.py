"""Which images may be taken: containers-policy.json(5), read as strictly as that page asks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bastide.images.decoding import decode
from bastide.images.reference import Reference, parse
from bastide.model.errors import BastideError, InvalidArgument, PermissionDenied, Unsupported


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Which name a signature must have been made for (`signedIdentity`)."""

    type: str = "matchRepoDigestOrExact"
    docker_reference: str = ""
    docker_repository: str = ""
    prefix: str = ""
    signed_prefix: str = ""


class Requirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One thing that an image must fulfil."""

    type: str
    key_type: str = ""
    key_path: str = ""
    key_paths: list[str] = []
    key_data: str = ""
    key_datas: list[str] = []
    signed_identity: Identity = Identity()

    def keys(self) -> list[bytes]:
        """The keys, as they are in their files. Raises InvalidArgument."""
        paths = [*([self.key_path] if self.key_path else []), *self.key_paths]
        datas = [*([self.key_data] if self.key_data else []), *self.key_datas]
        try:
            found = [Path(path).read_bytes() for path in paths]
            found += [base64.b64decode(data, validate=True) for data in datas]
        except OSError as error:
            raise InvalidArgument(f"key {error.filename} of the policy cannot be read: {error.strerror}") from error
        except binascii.Error as error:
            raise InvalidArgument("a key in the policy is not base64") from error
        return found


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default: list[Requirement]
    transports: dict[str, dict[str, list[Requirement]]] = {}


_KNOWN = ("insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned")


class Policy:
    """The policy of this host; without a file everything is accepted, as Docker does."""

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self._document = _Document([Requirement(type=_KNOWN[0])])
            return
        self._document = decode(data, _Document, str(path))
        every = [self._document.default, *(r for scopes in self._document.transports.values() for r in scopes.values())]
        for requirements in every:
            if not requirements:
                raise InvalidArgument(f"{path}: a list of requirements is empty")
            for requirement in requirements:
                _check(requirement, path)

    def docker(self, reference: Reference) -> list[Requirement]:
        """The requirements for an image of a registry: those of its narrowest scope."""
        scopes = self._document.transports.get("docker", {})
        for scope in _scopes(reference):
            if scope in scopes:
                return scopes[scope]
        return scopes.get("", self._document.default)

    def archive(self, transport: str) -> list[Requirement]:
        """The requirements for an image of an archive (`docker-archive`, `oci-archive`) or for `tarball`."""
        return self._document.transports.get(transport, {}).get("", self._document.default)


def _check(requirement: Requirement, path: Path) -> None:
    kind = requirement.type
    if kind not in _KNOWN:
        raise Unsupported(f"{path}: requirement {kind!r} is not supported: {', '.join(_KNOWN)} are")
    keys = requirement.key_path or requirement.key_paths or requirement.key_data or requirement.key_datas
    if kind in ("signedBy", "sigstoreSigned") and not keys:
        raise Unsupported(f"{path}: requirement {kind} without a key is not supported: name keyPath or keyData")
    if kind == "signedBy" and requirement.key_type != "GPGKeys":
        raise Unsupported(f"{path}: keyType {requirement.key_type!r} is not supported: GPGKeys is")
    known = ("matchExact", "matchRepoDigestOrExact", "matchRepository", "exactReference", "exactRepository")
    if requirement.signed_identity.type not in (*known, "remapIdentity"):
        raise InvalidArgument(f"{path}: unknown signedIdentity {requirement.signed_identity.type!r}")


def _scopes(reference: Reference) -> Iterator[str]:
    """From the narrowest scope to the widest."""
    yield str(reference)
    name = reference.name
    while name:
        yield name
        name = name.rpartition("/")[0]
    host = reference.domain
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature says: the manifest, and the name that it was signed for."""

    digest: str
    reference: str


class _Critical(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identity: dict[str, str]
    image: dict[str, str]
    type: str


class _Payload(msgspec.Struct, frozen=True):
    critical: _Critical
    optional: dict[str, Any] | None = None


_TYPES = ("atomic container signature", "cosign container image signature")


def parse_claim(payload: bytes) -> Claim:
    """The claim in a signed payload (containers/image, docs/containers-signature.5). Raises PermissionDenied."""
    try:
        critical = decode(payload, _Payload, "it is no claim").critical
        digest, reference = critical.image["docker-manifest-digest"], critical.identity["docker-reference"]
    except (InvalidArgument, KeyError) as error:
        raise PermissionDenied(f"signature has a malformed payload: {error}") from error
    if critical.type not in _TYPES or len(critical.image) != 1 or len(critical.identity) != 1:
        raise PermissionDenied("signature has a malformed payload")
    return Claim(digest=digest, reference=reference)


def identity_fits(identity: Identity, wanted: Reference, signed: str) -> bool:
    """Whether a signature made for the name `signed` is good for `wanted`."""
    try:
        found = parse(signed)
        if identity.type == "exactReference":
            return str(found) == str(parse(identity.docker_reference))
        if identity.type == "exactRepository":
            return found.name == parse(identity.docker_repository).name
        if identity.type == "remapIdentity":
            wanted = _remapped(identity, wanted)
    except BastideError:
        return False
    if identity.type == "matchRepository":
        return found.name == wanted.name
    if wanted.digest and identity.type != "matchExact":
        return found.name == wanted.name
    return bool(wanted.tag) and not wanted.digest and str(found) == str(wanted)


def _remapped(identity: Identity, wanted: Reference) -> Reference:
    name = wanted.name
    if name == identity.prefix or name.startswith(identity.prefix + "/"):
        moved = parse(identity.signed_prefix + name[len(identity.prefix) :])
        return Reference(moved.domain, moved.path, wanted.tag, wanted.digest)
    return wanted

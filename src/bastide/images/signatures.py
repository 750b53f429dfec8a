"""Signatures checked by the programs that are made for it: gpgv for OpenPGP, openssl for sigstore's keys.

Simple signing: containers-signature(5). Sigstore attachments: github.com/sigstore/cosign, specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bastide.host.syscalls import run
from bastide.model.errors import InvalidArgument, PermissionDenied

COSIGN_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
COSIGN_NOTE = "dev.cosignproject.cosign/signature"
SIGNATURE_LIMIT = 1 << 20
COUNT_LIMIT = 32
"""Signatures of one image that are looked at."""
_ARMOR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)\r?\n-----END", re.DOTALL)
_BAD = (b"BADSIG", b"ERRSIG", b"EXPSIG", b"EXPKEYSIG", b"REVKEYSIG", b"NODATA", b"UNEXPECTED", b"FAILURE")


def _binary(key: bytes) -> bytes:
    """A key without its ASCII armour (RFC 9580, 6.2). Raises InvalidArgument."""
    blocks = _ARMOR.findall(key)
    if not blocks:
        return key
    found = b""
    for block in blocks:
        lines = re.split(rb"\r?\n\r?\n", block, maxsplit=1)[-1].splitlines()
        try:
            found += base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")), validate=True)
        except binascii.Error as error:
            raise InvalidArgument(f"an OpenPGP key is damaged: {error}") from error
    return found


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bastide-signature-") as name:
        yield Path(name)


async def open_pgp(signature: bytes, keys: Sequence[bytes]) -> tuple[bytes, str]:
    """The payload of an OpenPGP message signed by one of `keys`, and the key's fingerprint.

    Raises PermissionDenied: not signed by them, expired, revoked.
    """
    with _folder() as folder:
        ring, message, payload = folder / "ring.gpg", folder / "message", folder / "payload"
        ring.write_bytes(b"".join(map(_binary, keys)))
        message.write_bytes(signature)
        done = await run(
            ["gpgv", "--status-fd", "1", "--keyring", ring, "--output", payload, message],
            env={"GNUPGHOME": str(folder), "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        )
        words = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith(b"[GNUPG:]")]
        valid = [line for line in words if line[:1] == [b"VALIDSIG"]]
        if done.code or len(valid) != 1 or any(line[0] in _BAD for line in words if line):
            raise PermissionDenied(f"signature is not by a trusted key: {done.complaint}")
        # The last field is the primary key's fingerprint (gnupg, doc/DETAILS).
        return payload.read_bytes(), valid[0][-1].decode()


async def sigstore(payload: bytes, signature: str, keys: Sequence[bytes]) -> int:
    """Which of `keys` (PEM) signed `payload`; `signature` is base64. Raises PermissionDenied."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise PermissionDenied("signature is not base64") from None
    with _folder() as folder:
        (folder / "payload").write_bytes(payload)
        (folder / "signature").write_bytes(raw)
        for number, key in enumerate(keys):
            (folder / "key").write_bytes(key)
            files = [folder / name for name in ("key", "signature", "payload")]
            done = await run(["openssl", "dgst", "-sha256", "-verify", files[0], "-signature", files[1], files[2]])
            if not done.code and done.stdout.strip() == b"Verified OK":
                return number
    raise PermissionDenied("signature is not by a trusted key")

"""policy.json and registries.d, read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bastide.images.lookaside import Lookaside
from bastide.images.lookaside import parse as parse_mapping
from bastide.images.policy import Identity, Policy, identity_fits, parse_claim
from bastide.images.reference import parse
from bastide.model.errors import InvalidArgument, PermissionDenied, Unsupported

ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
DIGEST = "sha256:" + "ab" * 32


def policy(tmp_path: Path, document: Any) -> Policy:
    (tmp_path / "policy.json").write_text(json.dumps(document))
    return Policy(tmp_path / "policy.json")


def test_no_file_accepts_as_docker_does(tmp_path: Path) -> None:
    assert Policy(tmp_path / "absent").docker(parse("debian"))[0].type == "insecureAcceptAnything"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("docker.io/library/debian:12", "reject"),
        ("docker.io/library/debian:13", "insecureAcceptAnything"),
        ("docker.io/library/alpine:1", "reject"),
        ("docker.io/other/app:1", "insecureAcceptAnything"),
        ("a.corp.example/x:1", "insecureAcceptAnything"),
        ("corp.example/x:1", "reject"),
        ("quay.io/x:1", "reject"),
    ],
)
def test_narrowest_scope(tmp_path: Path, name: str, kind: str) -> None:
    scopes = {
        "": [REJECT],
        "docker.io": [ACCEPT],
        "docker.io/library": [REJECT],
        "docker.io/library/debian": [ACCEPT],
        "docker.io/library/debian:12": [REJECT],
        "*.corp.example": [ACCEPT],
    }
    found = policy(tmp_path, {"default": [ACCEPT], "transports": {"docker": scopes}})
    assert found.docker(parse(name))[0].type == kind


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"default": []},
        {"default": [ACCEPT], "extra": 1},
        {"default": [{"type": "insecureAcceptAnything", "unknown": 1}]},
        {"default": [{"type": "signedBy", "keyType": "GPGKeys"}]},
        {"default": [{"type": "signedBy", "keyType": "X509", "keyPath": "/k"}]},
        {"default": [{"type": "sigstoreSigned", "fulcio": {}}]},
        {"default": [{"type": "trustMe"}]},
        {"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "signedIdentity": {"type": "any"}}]},
        [],
    ],
)
def test_anything_odd_refuses_the_file(tmp_path: Path, document: Any) -> None:
    with pytest.raises((InvalidArgument, Unsupported)):
        policy(tmp_path, document)


@pytest.mark.parametrize(
    ("identity", "wanted", "signed", "fits"),
    [
        ({"type": "matchExact"}, "quay.io/a:1", "quay.io/a:1", True),
        ({"type": "matchExact"}, f"quay.io/a@{DIGEST}", "quay.io/a:1", False),
        ({"type": "matchRepoDigestOrExact"}, f"quay.io/a@{DIGEST}", "quay.io/a:1", True),
        ({"type": "matchRepoDigestOrExact"}, "quay.io/a:2", "quay.io/a:1", False),
        ({"type": "matchRepository"}, "quay.io/a:2", "quay.io/a", True),
        ({"type": "matchRepository"}, "quay.io/a:2", "quay.io/ab", False),
        ({"type": "exactReference", "docker_reference": "quay.io/b:1"}, "quay.io/a:1", "quay.io/b:1", True),
        ({"type": "exactRepository", "docker_repository": "quay.io/b"}, "quay.io/a:1", "quay.io/b:9", True),
        (
            {"type": "remapIdentity", "prefix": "mirror.example", "signed_prefix": "quay.io"},
            "mirror.example/a:1",
            "quay.io/a:1",
            True,
        ),
        ({"type": "matchExact"}, "docker.io/library/debian:12", "debian:12", True),
        ({"type": "matchRepository"}, "quay.io/a:1", "not a name", False),
    ],
)
def test_identities(identity: dict[str, str], wanted: str, signed: str, fits: bool) -> None:
    assert identity_fits(Identity(**identity), parse(wanted), signed) is fits


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"critical": {"identity": {}, "image": {}, "type": "atomic container signature"}}',
        b'{"critical": {"identity": {"docker-reference": "a"}, "image": {"docker-manifest-digest": "d"}, "type": "x"}}',
        b'{"critical": {"identity": {"docker-reference": "a"}, "image": {"docker-manifest-digest": "d", "x": "x"}, "type": "atomic container signature"}}',  # noqa: E501
    ],
)
def test_malformed_claims(payload: bytes) -> None:
    with pytest.raises(PermissionDenied):
        parse_claim(payload)


def test_lookaside(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "---\n# comment\ndefault-docker:\n  lookaside: https://all.example/sigs/  # all\n"
        "docker:\n  quay.io/team:\n    lookaside: 'file:///srv/sigs'\n    use-sigstore-attachments: true\n"
        '  "reg.example:5000":\n    sigstore: https://old.example\n'
    )
    found = Lookaside(tmp_path)
    digest = DIGEST.replace(":", "=")
    assert found.url(parse("quay.io/team/app:1"), DIGEST) == f"file:///srv/sigs/quay.io/team/app@{digest}"
    assert found.url(parse("reg.example:5000/x:1"), DIGEST) == f"https://old.example/reg.example:5000/x@{digest}"
    assert found.url(parse("debian"), DIGEST) == f"https://all.example/sigs/docker.io/library/debian@{digest}"
    assert found.attachments(parse("quay.io/team/app:1"))
    assert not found.attachments(parse("quay.io/other"))
    assert Lookaside(tmp_path / "absent").url(parse("debian"), DIGEST) == ""


@pytest.mark.parametrize("text", ["- a\n", "a: [1]\n", "a: &x b\n", "a: b\na: c\n", "a\n", "a: |\n  b\n", "{a: b}\n"])
def test_other_yaml_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_mapping(text, "file.yaml")

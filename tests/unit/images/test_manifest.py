"""Manifests and configurations from hostile senders (ATTACKS 2, 4, 8)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bastide.images import manifest as documents
from bastide.images.manifest import Index, Manifest, MediaType
from bastide.model.errors import BastideError, InvalidArgument, NotFound, Unsupported
from bastide.model.image import Platform

DIGEST = "sha256:" + "ab" * 32


def descriptor(kind: str = MediaType.OCI_LAYER_GZIP, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": DIGEST, "size": 3, **more}


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": descriptor(MediaType.OCI_CONFIG),
        "layers": [descriptor()],
        **more,
    }


def index(*platforms: dict[str, str] | None) -> dict[str, Any]:
    entries = [
        descriptor(MediaType.OCI_MANIFEST, digest=f"sha256:{number:064x}", **({"platform": p} if p else {}))
        for number, p in enumerate(platforms)
    ]
    return {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}


def read(document: Any, kind: str = "") -> Manifest | Index:
    return documents.parse(json.dumps(document).encode(), kind)


def test_manifest_and_index_are_told_apart() -> None:
    assert isinstance(read(manifest()), Manifest)
    assert isinstance(read(index({"os": "linux", "architecture": "amd64"})), Index)
    untyped = manifest()
    del untyped["mediaType"]
    assert isinstance(read(untyped, "application/vnd.oci.image.manifest.v1+json; charset=utf-8"), Manifest)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (manifest(manifests=[]), ""),
        (index() | {"layers": []}, ""),
        (index() | {"config": descriptor()}, ""),
        (manifest(), MediaType.OCI_INDEX),
        (manifest(), MediaType.DOCKER_MANIFEST),
        (manifest(layers=[descriptor()] * 501), ""),
        (manifest(layers=[{**descriptor(), "size": -1}]), ""),
        (manifest(layers=[{**descriptor(), "digest": "sha256:../../etc"}]), ""),
        (manifest(layers=[{**descriptor(), "digest": "md5:00"}]), ""),
        (manifest(layers="all"), ""),
        (index() | {"manifests": [descriptor(MediaType.OCI_MANIFEST)] * 10_001}, ""),
    ],
)
def test_ambiguous_or_malformed(document: Any, kind: str) -> None:
    with pytest.raises(InvalidArgument):
        read(document, kind)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b"{" * 100_000, b'{"a":' * 100_000, b"[" * 3_000_000, b" " * (5 << 20)]
)
def test_no_document_at_all(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        documents.parse(data)


def test_schema_one_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        read({"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws")


@pytest.mark.parametrize(
    "layer",
    [
        descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        descriptor(urls=["http://169.254.169.254/latest/meta-data"]),
        descriptor("application/vnd.cncf.helm.chart.content.v1"),
    ],
)
def test_layers_from_elsewhere_are_refused(layer: dict[str, Any]) -> None:
    found = read(manifest(layers=[layer]))
    assert isinstance(found, Manifest)
    with pytest.raises(Unsupported):
        documents.check_runnable(found)


@pytest.mark.parametrize(
    ("wanted", "offers", "best"),
    [
        ("linux/amd64", [("arm64", ""), ("amd64", "")], 1),
        ("linux/arm64", [("arm64", "v8"), ("amd64", "")], 0),
        ("linux/arm/v7", [("arm", "v5"), ("arm", "v6")], 1),
        ("linux/arm/v6", [("arm", "v7"), ("arm", "v6")], 1),
        ("linux/amd64/v3", [("amd64", "v4"), ("amd64", "v2"), ("amd64", "")], 1),
        ("arm64", [("amd64", ""), ("arm64", "")], 1),
    ],
)
def test_platform_that_fits_best(wanted: str, offers: list[tuple[str, str]], best: int) -> None:
    found = read(index(*({"os": "linux", "architecture": a, "variant": v} for a, v in offers)))
    assert isinstance(found, Index)
    chosen = documents.choose(found, documents.parse_platform(wanted, Platform()))
    assert chosen.digest == f"sha256:{best:064x}"


def test_no_platform_fits() -> None:
    found = read(index({"os": "linux", "architecture": "s390x"}, {"os": "windows", "architecture": "amd64"}))
    assert isinstance(found, Index)
    with pytest.raises(NotFound, match="no matching manifest for linux/amd64 in the manifest list entries"):
        documents.choose(found, Platform())


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "../x", "linux amd64"])
def test_platform_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        documents.parse_platform(text, Platform())


def test_configuration_with_gos_nulls() -> None:
    data = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Hostname": None, "Cmd": ["sh"], "Env": None, "OnBuild": None, "Tty": None},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "history": None,
    }
    found = documents.parse_config(json.dumps(data).encode())
    assert found.config is not None
    assert found.config.cmd == ["sh"]
    assert found.rootfs.diff_ids == [DIGEST]


@pytest.mark.parametrize(
    "rootfs", [{"type": "layers", "diff_ids": ["../../x"]}, {"type": "zip", "diff_ids": []}, {"diff_ids": "x"}, 7]
)
def test_configuration_with_a_bad_rootfs(rootfs: Any) -> None:
    with pytest.raises(InvalidArgument):
        documents.parse_config(json.dumps({"os": "linux", "rootfs": rootfs}).encode())


@pytest.mark.parametrize(
    "stamp", ["yesterday", "2026-99-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z\n", "٢"]
)
@pytest.mark.parametrize("where", ["created", "history"])
def test_times_that_would_spoil_every_list(stamp: str, where: str) -> None:
    data = {"os": "linux", where: stamp if where == "created" else [{"created": stamp}]}
    with pytest.raises(InvalidArgument, match="invalid time"):
        documents.parse_config(json.dumps(data).encode())


def test_times_are_compared_as_times() -> None:
    stamps = [
        "",
        "1969-12-31T23:59:59.5Z",
        "2026-01-01T00:30:00+01:00",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.5Z",
    ]
    moments = [documents.instant(stamp) for stamp in stamps]
    assert moments == sorted(moments)
    assert moments[1] == -500_000_000
    assert documents.instant("2026-01-01T00:00:00.123456789Z") % 1_000_000_000 == 123_456_789


def test_oversized_configuration() -> None:
    with pytest.raises(InvalidArgument, match="more than"):
        documents.parse_config(b'{"author":"' + b"x" * (9 << 20) + b'"}')


@given(some.binary(max_size=200) | some.text(max_size=200).map(str.encode))
def test_any_bytes_raise_our_errors_only(data: bytes) -> None:
    for parse in (documents.parse, documents.parse_config):
        with contextlib.suppress(BastideError):
            parse(data)

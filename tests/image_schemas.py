"""The documents of the OCI image specification 1.1 as JSON schemas, and an archive held against them.

Written from the specification's text (descriptor.md, manifest.md, image-index.md, config.md, image-layout.md). A
document may have more fields than are named here; Docker's media types stand beside OCI's own.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]
_MEDIA_TYPE = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$",
}
_DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_STRINGS = {"type": "array", "items": {"type": "string"}}
_STRINGS_OR_NULL = {"anyOf": [_STRINGS, {"type": "null"}]}
_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
_SET = {"type": "object", "additionalProperties": {"type": "object", "maxProperties": 0}}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}


def _object(required: str, **properties: Any) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_DESCRIPTOR = _object(
    "mediaType digest size",
    mediaType=_MEDIA_TYPE,
    digest=_DIGEST,
    size={"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    urls={"type": "array", "items": {"type": "string", "format": "uri"}},
    annotations=_MAP,
    data={"type": "string"},
    artifactType=_MEDIA_TYPE,
    platform=_object(
        "architecture os", architecture={"type": "string", "minLength": 1}, os={"type": "string", "minLength": 1}
    ),
)
_HEAD: Schema = {
    "schemaVersion": {"const": 2},
    "artifactType": _MEDIA_TYPE,
    "subject": _DESCRIPTOR,
    "annotations": _MAP,
}
_VENDOR = "application/vnd."
MANIFEST = _object(
    "schemaVersion mediaType config layers",
    **_HEAD,
    mediaType={"enum": [f"{_VENDOR}oci.image.manifest.v1+json", f"{_VENDOR}docker.distribution.manifest.v2+json"]},
    config=_DESCRIPTOR,
    layers={"type": "array", "items": _DESCRIPTOR},
)
INDEX = _object(
    "schemaVersion mediaType manifests",
    **_HEAD,
    mediaType={"enum": [f"{_VENDOR}oci.image.index.v1+json", f"{_VENDOR}docker.distribution.manifest.list.v2+json"]},
    manifests={"type": "array", "items": _DESCRIPTOR},
)
CONFIG = _object(
    "architecture os rootfs",
    created=_TIME,
    author={"type": "string"},
    architecture={"type": "string", "minLength": 1},
    variant={"type": "string"},
    os={"type": "string", "minLength": 1},
    config=_or_null(
        _object(
            "",
            User={"type": "string"},
            ExposedPorts=_or_null(_SET),
            Env=_or_null({"type": "array", "items": {"type": "string", "pattern": "^[^=]+="}}),
            Entrypoint=_STRINGS_OR_NULL,
            Cmd=_STRINGS_OR_NULL,
            Volumes=_or_null(_SET),
            WorkingDir={"type": "string"},
            Labels=_or_null(_MAP),
            StopSignal=_or_null({"type": "string"}),
            ArgsEscaped={"type": "boolean"},
        )
    ),
    rootfs=_object("type diff_ids", type={"const": "layers"}, diff_ids={"type": "array", "items": _DIGEST}),
    history={
        "type": "array",
        "items": _object(
            "",
            created=_TIME,
            author={"type": "string"},
            created_by={"type": "string"},
            comment={"type": "string"},
            empty_layer={"type": "boolean"},
        ),
    },
)
LAYOUT = _object("imageLayoutVersion", imageLayoutVersion={"const": "1.0.0"})


def check(document: Any, schema: Schema) -> None:
    """Hold a document against a schema. Raises AssertionError with all that is wrong."""
    wrong = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document)]
    assert not wrong, wrong


def check_archive(data: bytes) -> list[str]:
    """Hold everything in an OCI layout against the specification; gives the digests of its images' manifests."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
    check(json.loads(files["oci-layout"]), LAYOUT)
    index = json.loads(files["index.json"])
    check(index, INDEX)

    def blob(descriptor: dict[str, Any]) -> bytes:
        found = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert (len(found), hashlib.sha256(found).hexdigest()) == (descriptor["size"], descriptor["digest"][7:])
        return found

    for entry in index["manifests"]:
        manifest = json.loads(blob(entry))
        check(manifest, MANIFEST)
        assert manifest["mediaType"] == entry["mediaType"], "a descriptor and its document are of one type"
        config = json.loads(blob(manifest["config"]))
        check(config, CONFIG)
        layers = config["rootfs"]["diff_ids"]
        assert len(layers) == len(manifest["layers"])
        assert len(layers) == sum(
            not step.get("empty_layer", False) for step in config.get("history", [])
        ) or not config.get("history")
        for layer in manifest["layers"]:
            blob(layer)
    return [entry["digest"] for entry in index["manifests"]]

"""An OpenAPI 3.1 document and a page for people, made of the description.

`python -m bastide.api.openapi.document` prints the document, with `--markdown` the page.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import msgspec

import bastide
from bastide.api.http import NEWEST, OLDEST
from bastide.api.openapi.operations import OPERATIONS, Operation
from bastide.api.openapi.schemas import SHAPES, STRUCTS, field

_REF = "#/components/schemas/"
_PLAIN = ("string", "integer", "number", "boolean")
_QUERY_KINDS = {"time": "string", "path": "string"}
_MEDIA = {"tar": "application/x-tar", "stream": "application/vnd.docker.multiplexed-stream", "text": "text/plain"}
_REASONS = {
    304: "Nothing to do",
    400: "The request is wrong",
    401: "Credentials are missing or refused",
    403: "Forbidden",
    404: "No such object",
    409: "The object's state or a name in use forbids it",
    500: "The host failed",
    501: "This engine, runtime or isolation cannot do that",
    503: "Not available now",
}
_PAGE_HEAD = """# The Docker Engine API

Every path of the Docker Engine API (versions 1.24 to 1.47) and how far bastide goes. This page is generated
from `src/bastide/api/openapi` (`python -m bastide.api.openapi.document --markdown`), which the tests check
requests and answers against. "absent" paths answer as an engine outside a swarm, without plugins and without
BuildKit does.

| method | path | what | state |
|---|---|---|---|
"""


def schema(shape: str) -> dict[str, Any]:
    """A shape as JSON Schema."""
    if shape.endswith("?"):
        return {"anyOf": [schema(shape[:-1]), {"type": "null"}]}
    if shape.startswith("["):
        return {"type": "array", "items": schema(shape[1:-1])}
    if shape.startswith("{"):
        return {"type": "object", "additionalProperties": schema(shape[1:-1])}
    if shape in _PLAIN:
        return {"type": shape}
    return {} if shape == "any" else {"$ref": f"{_REF}{shape}"}


def _object(fields: dict[str, str]) -> dict[str, Any]:
    """A shape of the newest version; what only some versions have is in `x-versions`, a span of them for each field."""
    known = {field(written): schema(shape) for written, shape in fields.items()}
    spans = {one.name: f"1.{one.first}-1.{one.last}" for one in known if one[2:] != (OLDEST[1], NEWEST[1])}
    return {
        "type": "object",
        "properties": {one.name: shape for one, shape in known.items()},
        "required": [one.name for one in known if one.there(NEWEST[1]) and not one.optional],
        **({"x-versions": spans} if spans else {}),
    }


def _components() -> dict[str, Any]:
    """All shapes; those of the program are described by their types."""
    outlines, parts = msgspec.json.schema_components(STRUCTS.values(), ref_template=_REF + "{name}")
    own = {name: outline for name, outline in zip(STRUCTS, outlines, strict=True) if outline != {"$ref": _REF + name}}
    create = {"allOf": [{"$ref": f"{_REF}Config"}, {"$ref": f"{_REF}ContainerCreateRest"}]}
    return {**parts, **own, **{name: _object(fields) for name, fields in SHAPES.items()}, "ContainerCreate": create}


def parameters(operation: Operation) -> list[dict[str, Any]]:
    """The parameters in the path and in the query."""
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    for word in operation.query.split():
        name, _, kind = word.partition(":")
        if name == "filters":
            values = {"type": "array", "items": {"type": "string"}}
            names = {"type": "object", "properties": dict.fromkeys(kind.split(","), values)}
            found.append({"name": name, "in": "query", "content": {"application/json": {"schema": names}}})
        else:
            found.append({"name": name, "in": "query", "schema": {"type": _QUERY_KINDS.get(kind, kind)}})
    return found


def _content(answer: str) -> dict[str, Any]:
    if not answer:
        return {}
    if answer in _MEDIA:
        return {"content": {_MEDIA[answer]: {"schema": {"type": "string", "format": "binary"}}}}
    return {"content": {"application/json": {"schema": schema(answer.removeprefix("lines of "))}}}


def _operation(operation: Operation) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": schema("Error")}}}
    answers: dict[str, Any] = {
        str(operation.status): {
            "description": operation.summary,
            **(error if operation.status > 400 else _content(operation.answer)),
        }
    }
    for status in (400, *operation.refusals, 500):
        answers.setdefault(str(status), {"description": _REASONS[status], **(error if status > 399 else {})})
    made: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', operation.path)}",
        "parameters": parameters(operation),
        "responses": answers,
        "x-state": operation.state,
    }
    if operation.body == "tar":
        made["requestBody"] = {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}}
    elif operation.body:
        known = operation.body in STRUCTS or operation.body == "ContainerCreate"
        body = schema(operation.body) if known else {"type": "object"}
        made["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return made


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "The Docker Engine API of bastide", "version": bastide.__version__},
        "servers": [{"url": "/v1.47"}],
        "paths": paths,
        "components": {"schemas": _components()},
    }


def page() -> str:
    """The page for people."""
    rows = [f"| {o.method} | `{o.path}` | {o.summary} | {o.state} |\n" for o in OPERATIONS]
    return _PAGE_HEAD + "".join(rows)


if __name__ == "__main__":
    text = page() if "--markdown" in sys.argv else msgspec.json.format(msgspec.json.encode(document())).decode() + "\n"
    sys.stdout.write(text)

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bastide.api.openapi import document, walls
from bastide.api.openapi.check import problems
from bastide.api.openapi.operations import OPERATIONS, Operation
from bastide.api.openapi.schemas import SHAPES, STRUCTS
from bastide.api.server import load_routes
from bastide.model.container import Health, HealthResult, MountPoint, State, Status
from bastide.model.network import PortBinding

from .conftest import Api, make_container

ROOT = Path(__file__).parents[3]
NATIVE = "/bastide/"
"""Where the routes that are not Docker's are."""


def plain(path: str) -> str:
    return re.sub(r"{(\w+)(:[^}]*)?}", "{}", path)


def test_every_route_is_described_and_the_other_way_round() -> None:
    routes = {(route.method, plain(route.path)) for route in load_routes() if not route.path.startswith(NATIVE)}
    described = {(operation.method, plain(operation.path)) for operation in OPERATIONS}
    assert routes | {("HEAD", "/_ping")} == described


def test_shapes_name_known_types() -> None:
    known = {*SHAPES, *STRUCTS, "string", "integer", "number", "boolean", "any"}
    for fields in SHAPES.values():
        for shape in fields.values():
            assert re.sub(r"[\[\]{}?]", "", shape) in known
    for operation in OPERATIONS:
        answer = re.sub(r"[\[\]{}?]|lines of ", "", operation.answer)
        assert answer in known | {"", "tar", "stream", "text"}


def test_the_document_refers_to_nothing_that_is_not_there() -> None:
    made = document.document()
    names = set(made["components"]["schemas"])

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
            return own.union(*(references(item) for item in value.values()))
        return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()

    assert references(made) <= names


def test_the_page_is_up_to_date() -> None:
    message = "write it anew: python -m bastide.api.openapi.document --markdown > docs/api.md"
    assert (ROOT / "docs" / "api.md").read_text() == document.page(), message


def test_the_page_of_the_walls_is_up_to_date() -> None:
    message = "write it anew: python -m bastide.api.openapi.walls > docs/isolation.md"
    assert (ROOT / "docs" / "isolation.md").read_text() == walls.page(), message


@pytest.mark.parametrize(
    ("value", "shape", "wrong"),
    [
        ({"message": "x"}, "Error", []),
        ({}, "Error", [".message: missing"]),
        ({"message": 5}, "Error", [".message: string expected, 5 found"]),
        ({"message": "x", "more": 1}, "Error", [".more: not in the description"]),
        (None, "[Id]?", []),
        ([{"Id": None}], "[Id]", ["[0].Id: string expected, None found"]),
        (True, "integer", [".: integer expected, True found"]),
        ({"a": {"b": 1}}, "{{integer}}", []),
    ],
)
def test_the_checker_finds_what_is_wrong(value: Any, shape: str, wrong: list[str]) -> None:
    assert problems(value, shape) == wrong


@pytest.fixture
def furnished(api: Api) -> Api:
    api.engine.containers.add(
        make_container(
            ports={"80/tcp": [PortBinding(host_ip="0.0.0.0", host_port="8080")], "81/tcp": None},
            mounts=[MountPoint(type="bind", source="/s", destination="/d")],
            state=State(
                status=Status.RUNNING,
                started_at="2026-01-02T03:04:05.000000000Z",
                health=Health(status="healthy", log=[HealthResult(start="a", end="b", exit_code=0, output="fine")]),
            ),
        )
    )
    return api


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/containers/json?size=1", "[ContainerSummary]"),
        ("/containers/web/json?size=1", "ContainerInspect"),
        ("/containers/web/top", "Top"),
        ("/containers/web/changes", "[Change]"),
        ("/containers/web/stats?stream=0&one-shot=1", "Stats"),
        ("/volumes", "Volumes"),
        ("/containers/none/json", "Error"),
    ],
)
async def test_answers_have_their_shape(furnished: Api, path: str, shape: str) -> None:
    _, value = await furnished.call("GET", path)
    assert problems(value, shape) == []


ABSENT = [operation for operation in OPERATIONS if operation.state == "absent"]


@pytest.mark.parametrize("operation", ABSENT, ids=lambda operation: f"{operation.method} {operation.path}")
async def test_absent_paths_answer_as_described(api: Api, operation: Operation) -> None:
    path = re.sub(r"{\w+}", "x", operation.path)
    status, value = await api.call(operation.method, path)
    assert status == operation.status
    assert problems(value, "Error") == []

"""schemathesis over our own description of the API: no failure of the daemon, no hang, no traceback.

Whatever the description allows, and a good deal that it does not, is sent to a live daemon that has one of
everything. The run is seeded, the same cases every time; `BASTIDE_TEST_WILD=40` tries that many others of each call.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, SerializationContext, openapi
from schemathesis.hooks import HookContext
from tests.clients.raw import Api
from tests.living import Daemon

from bastide.api.openapi.document import document

FINE = frozenset((501, 503, 507))
"""Statuses of 500 and above that are answers, not failures: unsupported, unavailable, full."""
WILD = int(os.environ.get("BASTIDE_TEST_WILD", "0"))
"""Cases of each call that are drawn at random; none: a dozen that are always the same."""
SECONDS = 20.0
"""How long the head of an answer may take."""
_ELSEWHERE = frozenset(("/images/create", "/images/search", "/auth", "/build", "/distribution/{name}/json"))
"""Paths that would have the daemon ask registries on the internet for names that nobody has."""
_EVERYTHING = ("/containers/prune", "/images/prune", "/networks/prune", "/volumes/prune", "/build/prune")
"""Calls that would take away what the others are to find."""
_NAMES = {"containers": "described", "images": "busybox", "networks": "described", "volumes": "described"}

schema = openapi.from_dict(document())


@schemathesis.serializer("application/x-tar")
def tar(context: SerializationContext, value: Any) -> bytes:
    """Bytes as they are: an archive is nothing that a description could make."""
    return value if isinstance(value, bytes) else str(value).encode()


@schema.hook
def map_path_parameters(context: HookContext, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Every other name is one that there is, but where that would take it away from the others."""
    operation = context.operation
    if path_parameters and operation is not None and operation.method.upper() != "DELETE":
        known = _NAMES.get(operation.path.split("/")[1])
        for name, value in path_parameters.items():
            if known and not operation.path.endswith("/rename") and len(str(value)) % 2 == 0:
                path_parameters[name] = known
    return path_parameters


@schema.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Containers are made of an image that there is, and of nothing of this host's."""
    if isinstance(body, dict):
        if context.operation is not None and context.operation.path == "/containers/create":
            body["Image"] = "busybox"
        for part in (body, body.get("HostConfig")):
            if isinstance(part, dict):
                for name in ("Binds", "Mounts", "Devices", "CgroupParent"):
                    part.pop(name, None)
    return body


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Iterator[Api]:
    """A daemon with a container, a network and a volume of the name `described`."""
    daemon.ok("network", "create", "described")
    daemon.ok("volume", "create", "described")
    # By an init, so that it ends when it is told to, however long a call would wait for that.
    daemon.ok("run", "-d", "--init", "--name", "described", "busybox", "sleep", "10000")
    yield Api(f"unix://{daemon.socket}")
    daemon.clear()
    for noun in ("network", "volume"):
        kept = [name for name in daemon.ok(noun, "ls", "-q").split() if name]
        for name in kept:
            daemon.cli(noun, "rm", name)
    said = daemon.log.read_text()
    assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:6000]


def head_of(api: Api, case: Case) -> tuple[int, bytes]:
    """Status and first bytes of the answer; streams are let go then."""
    query = urlencode({name: _text(value) for name, value in (case.query or {}).items()})
    body = b""
    if case.media_type:
        body = case.body if isinstance(case.body, bytes) else json.dumps(case.body, default=str).encode()
    lines = [
        f"{case.method} {case.formatted_path}{'?' + query if query else ''} HTTP/1.1",
        "Host: bastide",
        "Connection: close",
        *([f"Content-Type: {case.media_type}", f"Content-Length: {len(body)}"] if case.media_type else []),
    ]
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(SECONDS)
        channel.connect(api.path)
        channel.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = channel.recv(65536)
    return int(answer.split(b" ", 2)[1]), answer


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


@schema.exclude(path=list(_ELSEWHERE | set(_EVERYTHING))).parametrize()
@settings(
    max_examples=WILD or 12,
    deadline=None,
    derandomize=not WILD,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@pytest.mark.timeout(300)
def test_what_the_description_allows(api: Api, case: Case) -> None:
    status, answer = head_of(api, case)
    assert status < 500 or status in FINE, answer
    assert b"Traceback" not in answer

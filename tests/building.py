"""Builds through the API itself: contexts made by hand, answers read line by line."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from tests.clients.raw import Api
from tests.living import Daemon

Item = str | bytes | tarfile.TarInfo


def context(files: Mapping[str, Item]) -> bytes:
    """A context in tar form: names to contents, or to entries without any."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, item in files.items():
            if isinstance(item, tarfile.TarInfo):
                tar.addfile(item)
                continue
            data = item.encode() if isinstance(item, str) else item
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    """A symbolic link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


class Built:
    """What a build said."""

    def __init__(self, status: int, messages: list[dict[str, Any]]) -> None:
        self.status, self.messages = status, messages
        self.text = "".join(message.get("stream") or "" for message in messages)
        self.error: str = next((message["error"] for message in messages if "error" in message), "")
        if status >= 400:
            self.error = messages[0]["message"]
        self.code: int = next((m["errorDetail"].get("code", 0) for m in messages if "errorDetail" in m), 0)
        self.id: str = next((m["aux"]["ID"] for m in messages if "ID" in (m.get("aux") or {})), "")

    def ok(self) -> Built:
        """Itself, when it made an image."""
        assert self.id, self.error or self.text
        assert not self.error, self.error
        return self


def build(daemon: Daemon, dockerfile: str, files: Mapping[str, Item] | None = None, **query: Any) -> Built:
    """Build a Dockerfile with these files; steps have no network unless one is asked for."""
    data = context({"Dockerfile": dockerfile, **(files or {})})
    return send(daemon, data, **query)


def send(daemon: Daemon, data: bytes, **query: Any) -> Built:
    """Build a context."""
    words = {"networkmode": "none"} | {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()
    }
    api = Api(f"unix://{daemon.socket}")
    answer = api("POST", f"/v1.43/build?{urlencode(words)}", data, {"Content-Type": "application/x-tar"}, timeout=120)
    return Built(answer.status, answer.lines())


def read(daemon: Daemon, image: str, path: str) -> str:
    """A file of an image."""
    return daemon.ok("run", "--rm", "--network=none", "--entrypoint=", image, "cat", path)

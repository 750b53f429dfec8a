"""A registry that can be told to misbehave, and a snapshotter that is only a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import ssl
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from bastide.model.errors import NotFound
from bastide.model.process import DirectoryRoot
from bastide.storage import Info, Snapshotter, Usage

Handler = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(files: dict[str, bytes]) -> bytes:
    """An uncompressed layer of some files, owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def random_layer(name: str, size: int) -> bytes:
    """A layer that does not compress."""
    return layer_tar({name: os.urandom(size)})


class RegistryDouble:
    """The read half of the distribution API. `blobs` and `manifests` may be replaced at will.

    `on_blob`, `on_manifest` and `before` take over answers; `requests` is what came: method, path, headers.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.before: Callable[[web.Request], web.Response | None] = lambda request: None
        self.on_blob: Handler | None = None
        self.write: Callable[[web.Request], Awaitable[web.Response]] | None = None
        """Takes what is not a GET or HEAD."""
        self.blobs_of: set[str] = set()
        """The repositories that have the blobs; empty: all."""
        self.host = ""
        self._runner: web.AppRunner | None = None

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        """Listen on a port of loopback."""
        application = web.Application()
        application.router.add_get("/v2/", self._ping)
        application.router.add_get("/v2/{name:.+}/manifests/{reference}", self._manifest)
        application.router.add_get("/v2/{name:.+}/blobs/{digest}", self._blob)
        application.router.add_route("*", "/{rest:.*}", self._other)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        assert site._server is not None
        self.host = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]

    async def close(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _note(self, request: web.Request) -> web.Response | None:
        self.requests.append((request.method, request.path, dict(request.headers)))
        return self.before(request)

    async def _other(self, request: web.Request) -> web.StreamResponse:
        if taken := self._note(request):
            return taken
        if self.write is not None and request.method not in ("GET", "HEAD"):
            return await self.write(request)
        return web.Response(status=404)

    async def _ping(self, request: web.Request) -> web.StreamResponse:
        return self._note(request) or web.Response()

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        if taken := self._note(request):
            return taken
        found = self.manifests.get(request.match_info["reference"])
        if found is None:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return web.json_response(error, status=404)
        return web.Response(body=found[0], headers={"Content-Type": found[1]})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        if taken := self._note(request):
            return taken
        data = self.blobs.get(request.match_info["digest"])
        if data is None or (self.blobs_of and request.match_info["name"] not in self.blobs_of):
            return web.json_response({"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown"}]}, status=404)
        if self.on_blob is not None:
            return await self.on_blob(request, data)
        return whole_or_part(request, data)

    def fetched(self, digest: str) -> list[str]:
        """The Range headers ("" for none) of every request for a blob."""
        return [headers.get("Range", "") for _, path, headers in self.requests if path.endswith(digest)]

    # -- what it holds -------------------------------------------------------------------------

    def put(self, data: bytes) -> dict[str, Any]:
        """A blob; gives digest and size."""
        self.blobs[sha256(data)] = data
        return {"digest": sha256(data), "size": len(data)}

    def image(self, *layers: bytes, tag: str = "latest", **config: Any) -> str:
        """An image of uncompressed layers, which it compresses; gives the manifest's digest."""
        document = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
            "history": [{"created_by": f"step {number}"} for number in range(len(layers))],
        } | config
        described = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **self.put(gzip.compress(layer, 1, mtime=0))}
            for layer in layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                **self.put(json.dumps(document).encode()),
            },
            "layers": described,
        }
        return self.document(manifest, MANIFEST, tag)

    def document(self, value: Any, kind: str, *names: str) -> str:
        """A manifest or index under its digest and some names."""
        data = json.dumps(value).encode()
        for name in (sha256(data), *names):
            self.manifests[name] = (data, kind)
        return sha256(data)


def whole_or_part(request: web.Request, data: bytes) -> web.Response:
    """A blob, or the part that a Range header asks for."""
    wanted = request.headers.get("Range", "")
    if not wanted:
        return web.Response(body=data)
    begin = int(wanted.removeprefix("bytes=").rstrip("-"))
    header = f"bytes {begin}-{len(data) - 1}/{len(data)}"
    return web.Response(status=206, body=data[begin:], headers={"Content-Range": header})


async def cut_after(request: web.Request, data: bytes, count: int) -> web.StreamResponse:
    """Announce everything, send `count` bytes, break the connection."""
    begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    response = web.StreamResponse(status=206 if begin else 200)
    response.content_length = len(data) - begin
    if begin:
        response.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
    await response.prepare(request)
    await response.write(data[begin : begin + count])
    assert request.transport is not None
    request.transport.close()
    return response


class Folder(Snapshotter):
    """Layers as plain folders; snapshots are only remembered."""

    name = "folder"

    def __init__(self, place: Path) -> None:
        self.place = place
        self.snapshots: dict[str, tuple[str, ...]] = {}

    def _path(self, diff_id: str) -> Path:
        return self.place / diff_id[7:]

    async def probe(self) -> str:
        return ""

    @asynccontextmanager
    async def layer(self, diff_id: str) -> AsyncIterator[Path | None]:
        if self.has(diff_id):
            yield None
            return
        staged = self.place / f"staged-{os.urandom(4).hex()}"
        staged.mkdir(parents=True)
        try:
            yield staged
            staged.rename(self._path(diff_id))
        except BaseException:
            shutil.rmtree(staged)
            raise

    def has(self, diff_id: str) -> bool:
        return self._path(diff_id).is_dir()

    async def prepare(self, key: str, layers: Sequence[str], *, size: int = 0) -> DirectoryRoot:
        if missing := [diff_id for diff_id in layers if not self.has(diff_id)]:
            raise NotFound(missing[0])
        self.snapshots[key] = tuple(layers)
        return DirectoryRoot(path=self.place)

    async def mount(self, key: str) -> DirectoryRoot:
        return DirectoryRoot(path=self.place)

    async def unmount(self, key: str) -> None:
        return

    async def remove(self, key: str) -> None:
        self.snapshots.pop(key, None)
        shutil.rmtree(self._path(key), ignore_errors=True)

    async def usage(self, key: str) -> Usage:
        return Usage(size=sum(path.stat().st_size for path in self._path(key).rglob("*")))

    async def walk(self) -> AsyncIterator[Info]:
        for path in sorted(self.place.glob("?" * 64)):
            yield Info(key=f"sha256:{path.name}", committed=True)
        for key, layers in list(self.snapshots.items()):
            yield Info(key=key, committed=False, layers=layers)

"""Artifacts: what registries hold that is no image; bastide's own calls, below `/bastide`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bastide.api.http import ENGINE, nothing, reply
from bastide.engine.images import Images
from bastide.model.image import Artifact


def _described(images: Images, artifact: Artifact) -> dict[str, Any]:
    return {
        "Digest": artifact.descriptor.digest,
        "Names": images.artifacts.names(artifact),
        "MediaType": artifact.descriptor.media_type,
        "ArtifactType": artifact.artifact_type,
        "Subject": artifact.subject,
        "Size": artifact.size,
        "Annotations": artifact.annotations,
        "Manifests": artifact.documents,
        "Blobs": artifact.blobs,
    }


async def listing(request: web.Request) -> web.StreamResponse:
    """GET /bastide/artifacts"""
    images = request.app[ENGINE].images
    return reply([_described(images, artifact) for artifact in images.artifacts.all()])


async def inspect(request: web.Request) -> web.StreamResponse:
    """GET /bastide/artifacts/{name}"""
    images = request.app[ENGINE].images
    return reply(_described(images, images.artifacts.get(request.match_info["name"])))


async def remove(request: web.Request) -> web.StreamResponse:
    """DELETE /bastide/artifacts/{name}"""
    await request.app[ENGINE].images.artifacts.remove(request.match_info["name"])
    return nothing()


def routes() -> list[web.RouteDef]:
    """Everything below `/bastide/artifacts`."""
    return [
        web.get("/bastide/artifacts", listing, allow_head=False),
        web.get("/bastide/artifacts/{name:.+}", inspect, allow_head=False),
        web.delete("/bastide/artifacts/{name:.+}", remove),
    ]

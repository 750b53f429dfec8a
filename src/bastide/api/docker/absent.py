"""Parts of the Docker Engine API that this engine does not have, answered as clients expect of one without them."""

from __future__ import annotations

from aiohttp import web

from bastide.api.http import reply
from bastide.model.errors import NotFound, Unavailable, Unsupported

_NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)

SWARM = (
    ("GET", "/swarm"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/unlock"),
    *(
        (method, f"/{noun}{rest}")
        for noun in ("nodes", "services", "tasks", "secrets", "configs")
        for method, rest in (
            ("GET", ""),
            ("POST", "/create"),
            ("GET", "/{id}"),
            ("GET", "/{id}/logs"),
            ("POST", "/{id}/update"),
            ("DELETE", "/{id}"),
        )
    ),
)
"""What only a swarm manager answers."""

PLUGINS = (
    ("GET", "/plugins/{name:.+}/json"),
    ("DELETE", "/plugins/{name:.+}"),
    ("POST", "/plugins/{name:.+}/enable"),
    ("POST", "/plugins/{name:.+}/disable"),
    ("POST", "/plugins/{name:.+}/push"),
    ("POST", "/plugins/{name:.+}/set"),
    ("POST", "/plugins/{name:.+}/upgrade"),
)
"""What asks for a plugin that would have to be installed."""


async def _no_manager(request: web.Request) -> web.Response:
    raise Unavailable(_NO_MANAGER)


async def _no_swarm(request: web.Request) -> web.Response:
    raise Unsupported("swarm mode is not offered by this engine")


async def _not_in_swarm(request: web.Request) -> web.Response:
    raise Unavailable("This node is not part of a swarm")


async def _no_plugins(request: web.Request) -> web.Response:
    return reply([])


async def _no_plugin(request: web.Request) -> web.Response:
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')


async def _no_plugin_store(request: web.Request) -> web.Response:
    raise Unsupported("plugins are not offered by this engine")


async def _no_session(request: web.Request) -> web.Response:
    raise Unsupported("BuildKit sessions are not offered by this engine: set DOCKER_BUILDKIT=0")


async def _no_checkpoints(request: web.Request) -> web.Response:
    raise Unsupported("checkpoints are not offered by this engine")


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    checkpoints = "/containers/{name}/checkpoints"
    return [
        web.post("/swarm/init", _no_swarm),
        web.post("/swarm/join", _no_swarm),
        web.post("/swarm/leave", _not_in_swarm),
        *(web.route(method, path, _no_manager) for method, path in SWARM),
        web.get("/plugins", _no_plugins),
        web.get("/plugins/privileges", _no_plugin_store),
        web.post("/plugins/pull", _no_plugin_store),
        web.post("/plugins/create", _no_plugin_store),
        *(web.route(method, path, _no_plugin) for method, path in PLUGINS),
        web.post("/session", _no_session),
        web.post("/grpc", _no_session),
        web.get(checkpoints, _no_checkpoints),
        web.post(checkpoints, _no_checkpoints),
        web.delete(f"{checkpoints}/{{checkpoint}}", _no_checkpoints),
    ]

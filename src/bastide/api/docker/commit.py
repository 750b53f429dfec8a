"""Making an image of a container."""

from __future__ import annotations

from aiohttp import web

from bastide.api.http import ENGINE, body, flag, reply
from bastide.engine.commit import CommitRequest
from bastide.model.container import Config
from bastide.model.errors import InvalidArgument


async def commit(request: web.Request) -> web.Response:
    """`POST /commit`. An empty configuration in the body leaves the container's own."""
    query = request.query
    if not query.get("container"):
        raise InvalidArgument("a container's name or id is needed")
    given = await body(request, Config, default=Config())
    wanted = CommitRequest(
        repository=query.get("repo", ""),
        tag=query.get("tag", ""),
        comment=query.get("comment", ""),
        author=query.get("author", ""),
        changes=[line for text in query.getall("changes", []) for line in text.split("\n") if line.strip()],
        pause=flag(request, "pause", True),
        config=given if given != Config() else None,
    )
    image = await request.app[ENGINE].committer.commit(query["container"], wanted)
    return reply({"Id": image.id}, 201)


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    return [web.post("/commit", commit)]

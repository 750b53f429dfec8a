"""Every path of the Docker Engine API 1.47, with its parameters, its answers and how far this engine goes.

Query parameters are written `name:type`; `filters:` is followed by the names of the filters. Answers give
the statuses that a caller has to reckon with beside 400 (the request is wrong) and 500, and the shape of
the successful one: a shape, `tar`, `stream` (raw or framed), `lines of SHAPE` or nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    """One method of one path. `state` is `whole`, `absent` or says what is missing."""

    method: str
    path: str
    summary: str
    query: str = ""
    body: str = ""
    status: int = 200
    answer: str = ""
    refusals: tuple[int, ...] = ()
    state: str = "whole"
    since: str = "1.24"


_LIST_FILTERS = (
    "filters:ancestor,before,expose,exited,health,id,is-task,isolation,label,name,network,publish,since,status,volume"
)
_ONE = (404,)
_CONTAINER = "/containers/{name}"

CONTAINERS = (
    Operation(
        "GET",
        "/containers/json",
        "List containers",
        f"all:boolean limit:integer size:boolean {_LIST_FILTERS}",
        answer="[ContainerSummary]",
    ),
    Operation(
        "POST",
        "/containers/create",
        "Create a container",
        "name:string platform:string",
        "ContainerCreate",
        201,
        "Created",
        (404, 409, 501),
    ),
    Operation(
        "GET", f"{_CONTAINER}/json", "Inspect a container", "size:boolean", answer="ContainerInspect", refusals=_ONE
    ),
    Operation(
        "GET", f"{_CONTAINER}/top", "List its processes", "ps_args:string", answer="Top", refusals=(404, 409, 501)
    ),
    Operation(
        "GET",
        f"{_CONTAINER}/logs",
        "Its output so far",
        "follow:boolean stdout:boolean stderr:boolean since:time until:time timestamps:boolean details:boolean "
        "tail:string",
        answer="stream",
        refusals=(404, 501),
    ),
    Operation("GET", f"{_CONTAINER}/changes", "What differs from its image", answer="[Change]?", refusals=(404, 501)),
    Operation("GET", f"{_CONTAINER}/export", "Its files", answer="tar", refusals=(404, 501)),
    Operation(
        "GET",
        f"{_CONTAINER}/stats",
        "Its use of resources",
        "stream:boolean one-shot:boolean",
        answer="lines of Stats",
        refusals=(404, 501),
    ),
    Operation("POST", f"{_CONTAINER}/resize", "Resize its terminal", "h:integer w:integer", refusals=(404, 409)),
    Operation(
        "POST",
        f"{_CONTAINER}/start",
        "Start it",
        "detachKeys:string",
        status=204,
        refusals=(304, 404, 409, 501),
    ),
    Operation("POST", f"{_CONTAINER}/stop", "Stop it", "signal:string t:integer", status=204, refusals=(304, 404)),
    Operation(
        "POST", f"{_CONTAINER}/restart", "Restart it", "signal:string t:integer", status=204, refusals=(404, 409)
    ),
    Operation("POST", f"{_CONTAINER}/kill", "Send it a signal", "signal:string", status=204, refusals=(404, 409)),
    Operation(
        "POST",
        f"{_CONTAINER}/update",
        "Change its limits and restart policy",
        body="HostConfig",
        answer="Warnings",
        refusals=(404, 409, 501),
    ),
    Operation("POST", f"{_CONTAINER}/rename", "Rename it", "name:string", status=204, refusals=(404, 409)),
    Operation("POST", f"{_CONTAINER}/pause", "Freeze it", status=204, refusals=(404, 409, 501)),
    Operation("POST", f"{_CONTAINER}/unpause", "Let it go on", status=204, refusals=(404, 409, 501)),
    Operation(
        "POST",
        f"{_CONTAINER}/attach",
        "Its streams",
        "detachKeys:string logs:boolean stream:boolean stdin:boolean stdout:boolean stderr:boolean",
        status=101,
        answer="stream",
        refusals=(404, 409),
    ),
    Operation(
        "GET",
        f"{_CONTAINER}/attach/ws",
        "Its streams over a WebSocket",
        "detachKeys:string logs:boolean stream:boolean stdin:boolean stdout:boolean stderr:boolean",
        status=101,
        answer="stream",
        refusals=(403, 404, 409),
    ),
    Operation(
        "POST",
        f"{_CONTAINER}/wait",
        "Wait for its end",
        "condition:string",
        answer="Waited",
        refusals=_ONE,
    ),
    Operation(
        "DELETE",
        _CONTAINER,
        "Remove it",
        "v:boolean force:boolean link:boolean",
        status=204,
        refusals=(404, 409, 501),
        state="without legacy links (`link`)",
    ),
    Operation("HEAD", f"{_CONTAINER}/archive", "What a path in it is", "path:path", refusals=(404, 501)),
    Operation("GET", f"{_CONTAINER}/archive", "A path of it", "path:path", answer="tar", refusals=(404, 501)),
    Operation(
        "PUT",
        f"{_CONTAINER}/archive",
        "Unpack an archive in it",
        "path:path noOverwriteDirNonDir:boolean copyUIDGID:boolean",
        "tar",
        refusals=(403, 404, 501),
    ),
    Operation(
        "POST",
        "/containers/prune",
        "Remove stopped containers",
        "filters:label,label!,until",
        answer="ContainersPruned",
    ),
    Operation(
        "POST",
        f"{_CONTAINER}/exec",
        "Prepare a process",
        body="ExecConfig",
        status=201,
        answer="Id",
        refusals=(404, 409),
    ),
    Operation(
        "POST",
        "/exec/{id}/start",
        "Start a process",
        body="ExecStart",
        status=101,
        answer="stream",
        refusals=(404, 409),
    ),
    Operation("POST", "/exec/{id}/resize", "Resize its terminal", "h:integer w:integer", refusals=(404, 409)),
    Operation("GET", "/exec/{id}/json", "Inspect a process", answer="ExecInspect", refusals=_ONE),
)

IMAGES = (
    Operation(
        "GET",
        "/images/json",
        "List images",
        "all:boolean shared-size:boolean digests:boolean filters:before,dangling,label,reference,since,until",
        answer="[ImageSummary]",
    ),
    Operation(
        "POST",
        "/images/create",
        "Pull or import an image",
        "fromImage:string fromSrc:string repo:string tag:string message:string changes:string platform:string",
        "tar",
        answer="lines of Progress",
        refusals=(401, 404),
    ),
    Operation("GET", "/images/{name}/json", "Inspect an image", answer="ImageInspect", refusals=_ONE),
    Operation("GET", "/images/{name}/history", "How it was made", answer="[HistoryItem]", refusals=_ONE),
    Operation("POST", "/images/{name}/push", "Push it", "tag:string", answer="lines of Progress", refusals=(401, 404)),
    Operation("POST", "/images/{name}/tag", "Name it", "repo:string tag:string", status=201, refusals=(404, 409)),
    Operation(
        "DELETE",
        "/images/{name}",
        "Remove it",
        "force:boolean noprune:boolean",
        answer="[ImageDeleted]",
        refusals=(404, 409),
    ),
    Operation(
        "GET",
        "/images/search",
        "Search Docker Hub",
        "term:string limit:integer filters:is-automated,is-official,stars",
        answer="[SearchResult]",
        refusals=(503,),
    ),
    Operation(
        "POST", "/images/prune", "Remove unused images", "filters:dangling,until,label,label!", answer="ImagesPruned"
    ),
    Operation("GET", "/images/get", "Images as an archive", "names:string", answer="tar", refusals=_ONE),
    Operation("GET", "/images/{name}/get", "An image as an archive", answer="tar", refusals=_ONE),
    Operation("POST", "/images/load", "Load an archive", "quiet:boolean", "tar", answer="lines of Progress"),
    Operation(
        "POST",
        "/commit",
        "Make an image of a container",
        "container:string repo:string tag:string comment:string author:string pause:boolean changes:string",
        "Config",
        201,
        "Id",
        (404, 501),
    ),
    Operation(
        "POST",
        "/build",
        "Build an image",
        "dockerfile:string t:string remote:string q:boolean nocache:boolean pull:boolean rm:boolean forcerm:boolean "
        "buildargs:string labels:string target:string networkmode:string platform:string",
        "tar",
        answer="lines of Progress",
        state="the classic builder; BuildKit sessions are refused",
    ),
    Operation(
        "POST",
        "/build/secrets",
        "Hand over values for RUN --mount=type=secret",
        body="any",
        status=201,
        answer="Id",
        state="whole (bastide's own)",
    ),
    Operation("POST", "/build/prune", "Remove build cache", "all:boolean", answer="BuildPruned"),
    Operation("GET", "/distribution/{name}/json", "What a registry has", answer="Distribution", refusals=(401, 404)),
)

NETWORKS = (
    Operation(
        "GET", "/networks", "List networks", "filters:dangling,driver,id,label,name,scope,type", answer="[Network]"
    ),
    Operation(
        "GET", "/networks/{id}", "Inspect a network", "verbose:boolean scope:string", answer="Network", refusals=_ONE
    ),
    Operation(
        "POST",
        "/networks/create",
        "Create a network",
        body="NetworkCreate",
        status=201,
        answer="NetworkCreated",
        refusals=(403, 404, 409),
    ),
    Operation("DELETE", "/networks/{id}", "Remove a network", status=204, refusals=(403, 404, 409)),
    Operation(
        "POST", "/networks/{id}/connect", "Connect a container", body="NetworkConnect", refusals=(403, 404, 409, 501)
    ),
    Operation(
        "POST",
        "/networks/{id}/disconnect",
        "Disconnect a container",
        body="NetworkDisconnect",
        refusals=(403, 404, 409, 501),
    ),
    Operation(
        "POST", "/networks/prune", "Remove unused networks", "filters:until,label,label!", answer="NetworksPruned"
    ),
)

VOLUMES = (
    Operation("GET", "/volumes", "List volumes", "filters:dangling,driver,label,name", answer="Volumes"),
    Operation(
        "POST",
        "/volumes/create",
        "Create a volume",
        body="VolumeCreate",
        status=201,
        answer="Volume",
        refusals=(404, 501),
    ),
    Operation("GET", "/volumes/{name}", "Inspect a volume", answer="Volume", refusals=_ONE),
    Operation("DELETE", "/volumes/{name}", "Remove a volume", "force:boolean", status=204, refusals=(404, 409)),
    Operation(
        "POST", "/volumes/prune", "Remove unused volumes", "filters:all,label,label!,until", answer="VolumesPruned"
    ),
    Operation("PUT", "/volumes/{name}", "Update a cluster volume", status=501, state="absent", since="1.42"),
)

SYSTEM = (
    Operation("GET", "/_ping", "Whether it answers", answer="text"),
    Operation("HEAD", "/_ping", "Whether it answers"),
    Operation("GET", "/version", "Versions", answer="Version"),
    Operation("GET", "/info", "What the engine is and runs on", answer="Info"),
    Operation("GET", "/system/df", "Disk use", "type:string verbose:boolean", answer="DiskUsage"),
    Operation(
        "GET",
        "/events",
        "What happens",
        "since:time until:time filters:config,container,daemon,event,image,label,network,node,plugin,scope,secret,"
        "service,type,volume",
        answer="lines of Event",
    ),
    Operation("POST", "/auth", "Check credentials", body="Auth", answer="LoggedIn", refusals=(401, 503)),
)

_SWARM_NOUNS = ("nodes", "services", "tasks", "secrets", "configs")

ABSENT = (
    Operation("GET", "/swarm", "Inspect the swarm", status=503, state="absent"),
    Operation("POST", "/swarm/init", "Begin a swarm", status=501, state="absent"),
    Operation("POST", "/swarm/join", "Join a swarm", status=501, state="absent"),
    Operation("POST", "/swarm/leave", "Leave the swarm", status=503, state="absent"),
    Operation("POST", "/swarm/update", "Update the swarm", status=503, state="absent"),
    Operation("GET", "/swarm/unlockkey", "The swarm's unlock key", status=503, state="absent"),
    Operation("POST", "/swarm/unlock", "Unlock a manager", status=503, state="absent"),
    *(
        Operation(method, f"/{noun}{rest}", f"Swarm: {noun}", status=503, state="absent")
        for noun in _SWARM_NOUNS
        for method, rest in (
            ("GET", ""),
            ("POST", "/create"),
            ("GET", "/{id}"),
            ("GET", "/{id}/logs"),
            ("POST", "/{id}/update"),
            ("DELETE", "/{id}"),
        )
    ),
    Operation("GET", "/plugins", "List plugins (there are none)", answer="[any]"),
    Operation("GET", "/plugins/privileges", "What a plugin asks for", status=501, state="absent"),
    Operation("POST", "/plugins/pull", "Install a plugin", status=501, state="absent"),
    Operation("POST", "/plugins/create", "Create a plugin", status=501, state="absent"),
    *(
        Operation(method, f"/plugins/{{name}}{rest}", "A plugin (there are none)", status=404, state="absent")
        for method, rest in (
            ("GET", "/json"),
            ("DELETE", ""),
            ("POST", "/enable"),
            ("POST", "/disable"),
            ("POST", "/push"),
            ("POST", "/set"),
            ("POST", "/upgrade"),
        )
    ),
    Operation("POST", "/session", "A BuildKit session", status=501, state="absent"),
    Operation("POST", "/grpc", "BuildKit's own protocol", status=501, state="absent"),
    Operation("GET", f"{_CONTAINER}/checkpoints", "List checkpoints", status=501, state="absent"),
    Operation("POST", f"{_CONTAINER}/checkpoints", "Checkpoint a container", status=501, state="absent"),
    Operation("DELETE", f"{_CONTAINER}/checkpoints/{{checkpoint}}", "Remove a checkpoint", status=501, state="absent"),
)

OPERATIONS: tuple[Operation, ...] = (*CONTAINERS, *IMAGES, *NETWORKS, *VOLUMES, *SYSTEM, *ABSENT)

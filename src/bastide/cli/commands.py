"""The table of commands: where each is written and what it is for; and the names they also answer to.

A command's file is imported only when the command runs: the table is all that `bastide --help`, groups and
completion need.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.cli.grammar import Command

COMMON = "run exec ps build pull push images login logout search version info"
"""What most people use most, in that order."""

GROUPS = {
    "artifact": "Manage what registries hold that is no image",
    "builder": "Manage builds",
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Manage lists of images for several platforms",
    "network": "Manage networks",
    "snapshot": "Manage saved states of containers",
    "system": "Manage the daemon",
    "volume": "Manage volumes",
}

# name: (module[:attribute], summary)
COMMANDS: dict[str, tuple[str, str]] = {
    "attach": ("attach", "Attach local standard input, output, and error streams to a running container"),
    "build": ("build", "Build an image from a Dockerfile"),
    "clone": ("snapshot:CLONE", "Make a second container out of one, as it is or was"),
    "commit": ("commit", "Create a new image from a container's changes"),
    "completion": ("completion", "Print the completion script for a shell"),
    "cp": ("cp", "Copy files/folders between a container and the local filesystem"),
    "create": ("create", "Create a new container"),
    "daemon": ("daemon", "Run the daemon in the foreground"),
    "diff": ("diff", "Inspect changes to files or directories on a container's filesystem"),
    "events": ("events", "Get real time events from the daemon"),
    "exec": ("exec", "Execute a command in a running container"),
    "export": ("export", "Export a container's filesystem as a tar archive"),
    "history": ("history", "Show the history of an image"),
    "images": ("images", "List images"),
    "import": ("import_", "Import the contents from a tarball to create a filesystem image"),
    "info": ("info", "Display system-wide information"),
    "inspect": ("inspect", "Return low-level information on containers, images, networks and volumes"),
    "kill": ("kill", "Kill one or more running containers"),
    "load": ("load", "Load an image from a tar archive or STDIN"),
    "login": ("login", "Authenticate to a registry"),
    "logout": ("login:LOGOUT", "Log out from a registry"),
    "logs": ("logs", "Fetch the logs of a container"),
    "pause": ("pause", "Pause all processes within one or more containers"),
    "port": ("port", "List port mappings or a specific mapping for the container"),
    "ps": ("ps", "List containers"),
    "pull": ("pull", "Download an image from a registry"),
    "push": ("push", "Upload an image to a registry"),
    "rename": ("rename", "Rename a container"),
    "restart": ("restart", "Restart one or more containers"),
    "rm": ("rm", "Remove one or more containers"),
    "rmi": ("rmi", "Remove one or more images"),
    "run": ("run", "Create and run a new container from an image"),
    "save": ("save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "search": ("search", "Search Docker Hub for images"),
    "start": ("start", "Start one or more stopped containers"),
    "stats": ("stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("stop", "Stop one or more running containers"),
    "tag": ("tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "top": ("top", "Display the running processes of a container"),
    "unpause": ("pause:UNPAUSE", "Unpause all processes within one or more containers"),
    "update": ("update", "Update configuration of one or more containers"),
    "version": ("version", "Show the version of bastide and of its daemon"),
    "wait": ("wait", "Block until one or more containers stop, then print their exit codes"),
    "artifact inspect": ("artifact:INSPECT", "Display detailed information on one or more artifacts"),
    "artifact ls": ("artifact:LIST", "List artifacts"),
    "artifact rm": ("artifact:REMOVE", "Remove one or more artifacts"),
    "builder prune": ("prune:BUILDER", "Remove build cache"),
    "container inspect": ("inspect:CONTAINER", "Display detailed information on one or more containers"),
    "container prune": ("prune:CONTAINER", "Remove all stopped containers"),
    "image bootstrap": ("bootstrap", "Make an image of a distribution's own packages"),
    "image inspect": ("inspect:IMAGE", "Display detailed information on one or more images"),
    "image prune": ("prune:IMAGE", "Remove unused images"),
    "manifest annotate": ("manifest:ANNOTATE", "Say what an image in a manifest list runs on"),
    "manifest create": ("manifest:CREATE", "Create a manifest list of images that a registry holds"),
    "manifest inspect": ("manifest:INSPECT", "Display a manifest list, or an image's manifest"),
    "manifest push": ("manifest:PUSH", "Push a manifest list to its registry"),
    "manifest rm": ("manifest:REMOVE", "Delete one or more manifest lists from local storage"),
    "network connect": ("network:CONNECT", "Connect a container to a network"),
    "network create": ("network:CREATE", "Create a network"),
    "network disconnect": ("network:DISCONNECT", "Disconnect a container from a network"),
    "network inspect": ("inspect:NETWORK", "Display detailed information on one or more networks"),
    "network ls": ("network:LIST", "List networks"),
    "network prune": ("prune:NETWORK", "Remove all unused networks"),
    "network rm": ("network:REMOVE", "Remove one or more networks"),
    "snapshot create": ("snapshot:CREATE", "Save the state of a container"),
    "snapshot inspect": ("snapshot:INSPECT", "Display detailed information on a snapshot"),
    "snapshot ls": ("snapshot:LIST", "List snapshots"),
    "snapshot restore": ("snapshot:RESTORE", "Put a container back to a snapshot"),
    "snapshot rm": ("snapshot:REMOVE", "Remove a snapshot"),
    "system df": ("df", "Show what images, containers and volumes take on disk"),
    "system dial-stdio": ("dial_stdio", "Carry the daemon's API over standard input and output"),
    "system pool": ("pool", "Show or set the VMs that wait for containers"),
    "system prewarm": ("pool:PREWARM", "Make what the first VMs would wait for"),
    "system prune": ("prune:SYSTEM", "Remove unused data"),
    "volume create": ("volume:CREATE", "Create a volume"),
    "volume inspect": ("inspect:VOLUME", "Display detailed information on one or more volumes"),
    "volume ls": ("volume:LIST", "List volumes"),
    "volume prune": ("prune:VOLUME", "Remove unused local volumes"),
    "volume rm": ("volume:REMOVE", "Remove one or more volumes"),
}

_OF_CONTAINERS = (
    "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop "
    "top unpause update wait"
)
_OF_IMAGES = "build history import load pull push save tag"

ALIASES: dict[str, str] = {
    **{f"container {verb}": verb for verb in _OF_CONTAINERS.split()},
    **{f"image {verb}": verb for verb in _OF_IMAGES.split()},
    "artifact list": "artifact ls",
    "artifact remove": "artifact rm",
    "builder build": "build",
    "container list": "ps",
    "container ls": "ps",
    "container ps": "ps",
    "container remove": "rm",
    "image list": "images",
    "image ls": "images",
    "image remove": "rmi",
    "image rm": "rmi",
    "network list": "network ls",
    "network remove": "network rm",
    "snapshot list": "snapshot ls",
    "snapshot remove": "snapshot rm",
    "system events": "events",
    "system info": "info",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}


def resolve(words: list[str]) -> tuple[str, int]:
    """The command that the words begin with and how many words its name took; "" and 0 when there is none."""
    for count in (2, 1):
        name = " ".join(words[:count])
        name = ALIASES.get(name, name)
        if name in COMMANDS and len(words) >= count:
            return name, count
    return "", 0


def load(name: str) -> Command:
    """Import a command. `name` is one of COMMANDS."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    scope = __import__(f"bastide.cli.verbs.{module}", fromlist=["COMMAND"])
    command: Command = getattr(scope, attribute or "COMMAND")
    return command


def members(group: str) -> dict[str, str]:
    """The verbs of a group and what they are for, by name; second spellings are left out."""
    found = {}
    for name, target in [*((n, n) for n in COMMANDS), *ALIASES.items()]:
        head, _, verb = name.partition(" ")
        if head == group and verb and verb not in ("list", "remove", "ps", "dial-stdio"):
            found[verb] = COMMANDS[target][1]
    return dict(sorted(found.items()))


def spellings(name: str) -> list[str]:
    """Every name that a command answers to."""
    return sorted([*(alias for alias, target in ALIASES.items() if target == name), name])

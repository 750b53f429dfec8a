"""`bastide build`."""

from __future__ import annotations

import os

from bastide.cli.grammar import BYTES, INT, LIST, ON, STRING, SWITCH, Command, CommandError, Options, UsageError
from bastide.cli.options.container import pairs, ulimit
from bastide.cli.show import progress, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bastide.client import Client, Object

_FAR = ("http://", "https://", "git://", "github.com/", "git@")
_PROGRESS = ("auto", "plain", "tty")
_PLAIN = {
    "cgroup-parent": "cgroupparent",
    "compression": "compression",
    "cpu-period": "cpuperiod",
    "cpu-quota": "cpuquota",
    "cpu-shares": "cpushares",
    "cpuset-cpus": "cpusetcpus",
    "cpuset-mems": "cpusetmems",
    "force-rm": "forcerm",
    "isolation": "isolation",
    "memory": "memory",
    "memory-swap": "memswap",
    "network": "networkmode",
    "no-cache": "nocache",
    "platform": "platform",
    "pull": "pull",
    "shm-size": "shmsize",
    "squash": "squash",
    "target": "target",
}


def build(client: Client, options: Options) -> int:
    """Build an image and show what happens."""
    place = options.arguments[0]
    if options.text("progress", "auto") not in _PROGRESS:
        raise UsageError(f"--progress {options.text('progress')}: one of {', '.join(_PROGRESS)}")
    query = _query(options)
    context, query["dockerfile"], query["remote"] = _context(place, options.text("file"))
    if "secret" in options:
        query["secrets"] = client.images.keep_secrets(dict(_secret(word) for word in options.all("secret")))
    found: list[str] = []

    def note(aux: Object) -> None:
        if "ID" in aux:
            found.append(str(aux["ID"]))

    messages = client.images.build(query, context, _headers())
    if options.on("quiet"):
        lines = _quietly(messages, note)
        text.out(found[-1] if found else lines)
    else:
        progress.show(messages, aux=note)
    if options.text("iidfile"):
        if not found:
            raise CommandError("the daemon did not say the image's ID")
        with open(options.text("iidfile"), "w") as file:
            file.write(found[-1])
    return 0


def _quietly(messages: Iterator[Object], note: object) -> str:
    """Only the id; the steps' output appears when the build fails."""
    from bastide.model.errors import BastideError

    said: list[str] = []
    last = ""
    try:
        for message in messages:
            if message.get("aux") and callable(note):
                note(message["aux"])
            said.append(str(message.get("stream") or ""))
            last = said[-1].strip() or last
    except BastideError:
        text.err("".join(said).rstrip("\n"))
        raise
    return last


def _query(options: Options) -> Object:
    query: Object = {field: options.values[name] for name, field in _PLAIN.items() if name in options}
    arguments: Object = {}
    for word in options.all("build-arg"):
        name, mark, value = word.partition("=")
        if mark or name in os.environ:
            arguments[name] = value if mark else os.environ[name]
        else:
            arguments[name] = None
    query |= {
        "t": options.all("tag"),
        "buildargs": arguments,
        "labels": pairs(options.all("label")),
        "q": options.on("quiet"),
        "rm": "1" if options.on("rm", True) else "0",
        "extrahosts": options.all("add-host"),
        "securityopt": options.all("security-opt"),
        "ssh": [_agent(word) for word in options.all("ssh")],
        "version": "1",
    }
    if "cache-from" in options:
        from bastide.client.codec import encode

        query["cachefrom"] = encode(options.all("cache-from")).decode()
    if "ulimit" in options:
        from bastide.client.codec import encode

        query["ulimits"] = encode([ulimit(word) for word in options.all("ulimit")]).decode()
    return query


def _secret(word: str) -> tuple[str, str]:
    """`id=ID[,src=PATH|,env=NAME]` as its id and its value in base64; a file named like the id, if nothing else."""
    from base64 import b64encode

    fields = {key: value for key, _, value in (part.partition("=") for part in word.split(","))}
    identity = fields.get("id") or os.path.basename(fields.get("src") or fields.get("source") or "")
    if not identity or set(fields) - {"id", "src", "source", "env", "type"}:
        raise UsageError(f'invalid argument "{word}" for "--secret" flag: id=ID[,src=PATH|,env=NAME] is the form')
    path, name = fields.get("src") or fields.get("source"), fields.get("env", "")
    if name or (not path and identity in os.environ):
        if (name or identity) not in os.environ:
            raise CommandError(f"secret {identity}: the environment has no {name or identity}")
        return identity, b64encode(os.environ[name or identity].encode()).decode()
    with open(path or identity, "rb") as file:
        return identity, b64encode(file.read()).decode()


def _agent(word: str) -> str:
    """`default` or `ID=PATH` of an ssh agent's socket."""
    identity, _, path = word.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise CommandError(f"ssh {identity}: no agent runs (SSH_AUTH_SOCK is not set)")
    return f"{identity}={os.path.abspath(path)}"


def _context(place: str, dockerfile: str) -> tuple[Iterator[bytes], str, str]:
    """The archive to send, the Dockerfile's name in it, and where the daemon fetches it itself."""
    from bastide.cli.verbs import load

    if place == "-":
        return _from_stdin(dockerfile)
    if place.startswith(_FAR):
        return iter(()), dockerfile or "Dockerfile", place
    if not os.path.isdir(place):
        if os.path.isfile(place):
            return load.read(place), dockerfile or "Dockerfile", ""
        raise CommandError(f'unable to prepare context: path "{place}" not found')
    return _from_folder(os.path.realpath(place), dockerfile)


def _from_stdin(dockerfile: str) -> tuple[Iterator[bytes], str, str]:
    """Standard input is an archive, or a Dockerfile alone."""
    from bastide.cli import archives
    from bastide.cli.verbs import load

    blocks = load.read("-")
    first = b""
    while len(first) < 512 and (block := next(blocks, b"")):
        first += block
    packed = (
        first[:2] == b"\x1f\x8b"
        or first[:3] == b"BZh"
        or first[:6] == b"\xfd7zXZ\0"
        or first[:4] == b"\x28\xb5\x2f\xfd"
    )
    if packed or first[257:262] == b"ustar":
        return _chain(first, blocks), dockerfile or "Dockerfile", ""
    content = b"".join([first, *blocks])
    return iter([archives.text_entry("Dockerfile", content), b"\0" * 1024]), "Dockerfile", ""


def _chain(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from blocks


def _from_folder(folder: str, dockerfile: str) -> tuple[Iterator[bytes], str, str]:
    from bastide.cli import archives
    from bastide.cli.options import context

    extra = b""
    path = dockerfile or f"{folder}/Dockerfile"
    if dockerfile == "-":
        from bastide.cli.verbs import load

        name = f".dockerfile.{os.urandom(10).hex()}"
        extra = archives.text_entry(name, b"".join(load.read("-")))
        path = f"{folder}/Dockerfile"
    else:
        if dockerfile and not os.path.exists(path) and os.path.exists(f"{folder}/{dockerfile}"):
            path = f"{folder}/{dockerfile}"
        if not os.path.exists(path):
            raise CommandError(f"unable to prepare context: unable to evaluate the Dockerfile: {path} not found")
        real = os.path.realpath(path)
        if real.startswith(f"{folder}/"):
            name = os.path.relpath(os.path.abspath(path), folder)
            name = name if not name.startswith("..") else real[len(folder) + 1 :]
        else:
            name = f".dockerfile.{os.urandom(10).hex()}"
            with open(real, "rb") as file:
                extra = archives.text_entry(name, file.read())
    ignore = context.read(folder, path)
    files = context.entries(folder, ignore, frozenset((name, ".dockerignore")))
    return _chain(extra, archives.pack(files, owner=False)), name, ""


def _headers() -> dict[str, str]:
    """Credentials for every registry that this user is logged in to."""
    from bastide.cli import credentials

    known = credentials.load()
    names = {*(known.get("auths") or {}), *(known.get("credHelpers") or {})}
    found = {name: entry for name in sorted(names) if (entry := credentials.find(name))}
    from base64 import urlsafe_b64encode

    from bastide.client.codec import encode

    return {"X-Registry-Config": urlsafe_b64encode(encode(found)).decode()} if found else {}


COMMAND = Command(
    build,
    "[OPTIONS] PATH | URL | -",
    (
        ("add-host", "", LIST, "Add a custom host-to-IP mapping (host:ip)"),
        ("build-arg", "", LIST, "Set build-time variables"),
        ("cache-from", "", LIST, "Images to consider as cache sources"),
        ("cgroup-parent", "", STRING, "Parent cgroup for the RUN instructions"),
        ("compression", "", STRING, "How layers are compressed: gzip (default) or zstd"),
        ("cpu-period", "", INT, "Limit the CFS period, in microseconds"),
        ("cpu-quota", "", INT, "Limit the CFS quota, in microseconds"),
        ("cpu-shares", "c", INT, "CPU shares (relative weight)"),
        ("cpuset-cpus", "", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        ("cpuset-mems", "", STRING, "Memory nodes in which to allow execution (0-3, 0,1)"),
        ("file", "f", STRING, "Name of the Dockerfile (default PATH/Dockerfile)"),
        ("force-rm", "", SWITCH, "Always remove intermediate containers"),
        ("iidfile", "", STRING, "Write the image ID to the file"),
        ("isolation", "", STRING, "The wall around the RUN instructions: container, gvisor or vm"),
        ("label", "", LIST, "Set metadata for the image"),
        ("memory", "m", BYTES, "Memory limit"),
        ("memory-swap", "", BYTES, "Limit of memory plus swap; -1 for unlimited swap"),
        ("network", "", STRING, "Network of the RUN instructions"),
        ("no-cache", "", SWITCH, "Do not use cache when building the image"),
        ("platform", "", STRING, "Platform of the image (os/arch[/variant])"),
        ("pull", "", SWITCH, "Always attempt to pull a newer version of the base image"),
        ("progress", "", STRING, "auto, plain or tty; steps and their output are shown in each"),
        ("quiet", "q", SWITCH, "Print only the image ID"),
        ("rm", "", ON, "Remove intermediate containers after a successful build"),
        ("secret", "", LIST, "Secret for RUN --mount=type=secret (id=ID[,src=PATH|,env=NAME])"),
        ("security-opt", "", LIST, "Security options"),
        ("shm-size", "", BYTES, "Size of /dev/shm"),
        ("squash", "", SWITCH, "Squash the new layers into one"),
        ("ssh", "", LIST, "Agent for RUN --mount=type=ssh (default, or ID=SOCKET)"),
        ("tag", "t", LIST, "Name and optionally a tag (name:tag)"),
        ("target", "", STRING, "The stage to build"),
        ("ulimit", "", LIST, "Ulimit options (name=soft[:hard])"),
    ),
    1,
    1,
    examples=(
        ("build -t app .", "the Dockerfile in this folder"),
        ("build --isolation vm -t untrusted .", "every RUN behind its own kernel"),
    ),
)

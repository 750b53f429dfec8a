"""`bastide manifest`: create, annotate, inspect, push, rm."""

from __future__ import annotations

from bastide.cli.grammar import LIST, STRING, SWITCH, Command, Options
from bastide.cli.options import references
from bastide.cli.show import text
from bastide.cli.verbs.each import for_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def _auth(name: str) -> str:
    from bastide.cli import credentials

    return credentials.header(credentials.find(references.auth_key(references.domain(references.split(name)[0])[0])))


def create(client: Client, options: Options) -> int:
    """Make a list of images that a registry holds, and print its name."""
    name, *sources = options.arguments
    made = client.manifests.create(name, sources, options.on("amend"), _auth(name))
    text.out(f"Created manifest list {made}")
    return 0


def annotate(client: Client, options: Options) -> int:
    """Say what an image of a list runs on."""
    name, source = options.arguments
    wanted = {
        "Source": source,
        "Os": options.text("os"),
        "Architecture": options.text("arch"),
        "Variant": options.text("variant"),
        "OsVersion": options.text("os-version"),
        "OsFeatures": [word for value in options.all("os-features") for word in value.split(",") if word],
    }
    client.manifests.annotate(name, wanted)
    return 0


def inspect(client: Client, options: Options) -> int:
    """Show a list, or what a registry has under a name."""
    from bastide.client import codec

    name = options.arguments[0]
    text.out(codec.pretty(client.manifests.inspect(name, _auth(name))))
    return 0


def push(client: Client, options: Options) -> int:
    """Bring a list to its registry and print its digest."""
    name = options.arguments[0]
    text.out(client.manifests.push(name, options.on("purge"), _auth(name)))
    return 0


def remove(client: Client, options: Options) -> int:
    """Forget lists that are here and print their names."""
    return for_each(options.arguments, client.manifests.remove)


CREATE = Command(
    create,
    "[OPTIONS] MANIFEST_LIST IMAGE [IMAGE...]",
    (("amend", "a", SWITCH, "Amend an existing manifest list"),),
    2,
    None,
    examples=(("manifest create reg:5000/app:1 reg:5000/app:1-amd64 reg:5000/app:1-arm64", "of two pushed images"),),
)
ANNOTATE = Command(
    annotate,
    "[OPTIONS] MANIFEST_LIST IMAGE",
    (
        ("arch", "", STRING, "Set architecture"),
        ("os", "", STRING, "Set operating system"),
        ("os-features", "", LIST, "Set operating system features"),
        ("os-version", "", STRING, "Set operating system version"),
        ("variant", "", STRING, "Set architecture variant"),
    ),
    2,
    2,
)
INSPECT = Command(inspect, "MANIFEST_LIST|IMAGE", (), 1, 1)
PUSH = Command(
    push, "[OPTIONS] MANIFEST_LIST", (("purge", "p", SWITCH, "Remove the local manifest list after push"),), 1, 1
)
REMOVE = Command(remove, "MANIFEST_LIST [MANIFEST_LIST...]", (), 1, None)

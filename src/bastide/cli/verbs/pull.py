"""`bastide pull`."""

from __future__ import annotations

from bastide.cli.grammar import LIST, STRING, SWITCH, Command, CommandError, Options
from bastide.cli.options import references
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def pull(client: Client, options: Options) -> int:
    """Pull an image and print its full name."""
    reference = options.arguments[0]
    name, tag = references.split(reference)
    if options.on("all-tags"):
        if tag:
            raise CommandError("tag can't be used with --all-tags/-a")
        _fetch(client, name, "", options.text("platform"), quiet=options.on("quiet"), descriptor=1, more=_more(options))
        text.out(references.full(name, "latest").rpartition(":")[0])
        return 0
    if not tag and not options.on("quiet"):
        text.out("Using default tag: latest")
    platform, quiet = options.text("platform"), options.on("quiet")
    _fetch(client, name, tag or "latest", platform, quiet=quiet, descriptor=1, more=_more(options))
    text.out(references.full(name, tag or "latest"))
    return 0


def _more(options: Options) -> dict[str, str]:
    """What bastide can be asked for beyond docker."""
    return {
        "referrers": "1" if options.on("referrers") else "",
        "insecure-options": ",".join(options.all("insecure-options")),
    }


def fetch(client: Client, reference: str, platform: str, *, quiet: bool, descriptor: int, insecure: str = "") -> None:
    """Pull with progress on a descriptor (1 or 2)."""
    name, tag = references.split(reference)
    more = {"insecure-options": insecure}
    _fetch(client, name, tag or "latest", platform, quiet=quiet, descriptor=descriptor, more=more)


def _fetch(
    client: Client,
    name: str,
    tag: str,
    platform: str,
    *,
    quiet: bool,
    descriptor: int,
    more: dict[str, str] | None = None,
) -> None:
    from bastide.cli import credentials
    from bastide.cli.show import progress

    auth = credentials.header(credentials.find(references.auth_key(references.domain(name)[0])))
    messages = client.images.pull(name, tag, platform, auth, more or {})
    if quiet:
        for _ in messages:
            pass
    else:
        progress.show(messages, descriptor)


COMMAND = Command(
    pull,
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    (
        ("all-tags", "a", SWITCH, "Download all tagged images in the repository"),
        ("insecure-options", "", LIST, "Do without a protection (image: signatures)"),
        ("platform", "", STRING, "Platform to pull, when the image has several (os/arch[/variant])"),
        ("quiet", "q", SWITCH, "Suppress verbose output"),
        ("referrers", "", SWITCH, "Pull what refers to the image too"),
    ),
    1,
    1,
    examples=(
        ("pull debian:12", "from Docker Hub"),
        ("pull localhost:5000/team/app@sha256:…", "exactly that image from another registry"),
    ),
)

"""`bastide images`."""

from __future__ import annotations

from bastide.cli.grammar import SWITCH, Command, Options
from bastide.cli.show import moments, text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.formats import FILTERS, FORMAT, NO_TRUNC, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from bastide.client import Client, Object

_NONE = "<none>"
_UNKNOWN = "N/A"

TITLES = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}
SHOWN = ("Repository", "Tag", "ID", "CreatedSince", "Size")


def images(client: Client, options: Options) -> int:
    """List images, a line for each of their names."""
    wanted = filters(options.all("filter"))
    if options.arguments:
        wanted.setdefault("reference", []).append(options.arguments[0])
    digests = options.on("digests")
    form, whole = options.text("format"), options.on("no-trunc")
    found = client.images.list(options.on("all"), wanted)
    rows = [
        fields(item, name, tag, digest, whole=whole)
        for item in found
        for name, tag, digest in spellings(item, digests=digests or ".Digest" in form)
    ]
    if options.on("quiet") and form in ("", "table"):
        for row in rows:
            text.out(row["ID"]())
        return 0
    shown = (*SHOWN[:2], "Digest", *SHOWN[2:]) if digests else SHOWN
    Listing("formatter.imageContext", TITLES, shown).print(form, rows)
    return 0


def spellings(item: Object, *, digests: bool) -> Iterator[tuple[str, str, str]]:
    """Repository, tag and digest of each line that an image takes."""
    tags = [tag for tag in item.get("RepoTags") or [] if tag != "<none>:<none>"]
    pairs = [digest.split("@", 1) for digest in item.get("RepoDigests") or [] if "<none>" not in digest]
    named: set[str] = set()
    for tag in tags:
        name, _, label = tag.rpartition(":")
        of_name = [value for key, value in pairs if key == name]
        named.add(name)
        if not digests or not of_name:
            yield name, label, _NONE
        for digest in of_name if digests else ():
            yield name, label, digest
    for name, digest in pairs:
        if name not in named and (digests or not tags):
            named.add(name)
            yield name, _NONE, digest
    if not tags and not pairs:
        yield _NONE, _NONE, _NONE


def fields(item: Object, name: str, tag: str, digest: str, *, whole: bool) -> dict[str, Callable[..., Any]]:
    """The fields of a row."""
    size, shared = item.get("Size") or 0, item.get("SharedSize", -1)
    count = item.get("Containers", -1)
    return {
        "Repository": lambda: name,
        "Tag": lambda: tag,
        "Digest": lambda: digest,
        "ID": lambda: item["Id"] if whole else units.short_id(item["Id"]),
        "CreatedSince": lambda: moments.ago(item["Created"]) if item["Created"] > 0 else _UNKNOWN,
        "CreatedAt": lambda: moments.local(item["Created"]),
        "Size": lambda: units.human_size(size, 3),
        "Containers": lambda: str(count) if count >= 0 else _UNKNOWN,
        "SharedSize": lambda: units.human_size(shared) if shared >= 0 else _UNKNOWN,
        "UniqueSize": lambda: units.human_size(size - shared) if shared >= 0 else _UNKNOWN,
        "VirtualSize": lambda: units.human_size(item.get("VirtualSize") or size),
    }


COMMAND = Command(
    images,
    "[OPTIONS] [REPOSITORY[:TAG]]",
    (
        ("all", "a", SWITCH, "Show all images (default hides intermediate images)"),
        ("digests", "", SWITCH, "Show digests"),
        FILTERS,
        FORMAT,
        NO_TRUNC,
        ("quiet", "q", SWITCH, "Only show image IDs"),
    ),
    0,
    1,
    examples=(("images --filter dangling=true -q", "images that have no name any more"),),
)

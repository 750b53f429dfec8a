"""The flags that listings share, and filters as the API takes them."""

from __future__ import annotations

from bastide.cli.grammar import FILTER, STRING, SWITCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.cli.grammar import Flag

FORMAT: Flag = ("format", "", STRING, "'table', 'table TEMPLATE', 'json' or a Go template")
SHORT_FORMAT: Flag = ("format", "f", STRING, "'json' or a Go template")
FILTERS: Flag = ("filter", "f", FILTER, "Show only what fits (key=value)")
LONG_FILTERS: Flag = ("filter", "", FILTER, "Act only on what fits (key=value)")
NO_TRUNC: Flag = ("no-trunc", "", SWITCH, "Do not truncate output")


def filters(words: list[str]) -> dict[str, list[str]]:
    """`key=value` words as the API's map of lists."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, _, value = word.partition("=")
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found

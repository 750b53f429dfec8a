"""`bastide events`."""

from __future__ import annotations

from bastide.cli.grammar import STRING, Command, Options
from bastide.cli.show import moments, table, text
from bastide.cli.verbs.formats import FILTERS, SHORT_FORMAT, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object

_NANO = 10**9


def events(client: Client, options: Options) -> int:
    """Show events as they happen."""
    since, until = (moments.timestamp(options.text(n)) if n in options else "" for n in ("since", "until"))
    form = options.text("format")
    form = "{{json .}}" if form == "json" else form
    for event in client.system.events(since, until, filters(options.all("filter"))):
        text.out_made_safe(table.each(form, [event])[0] if form else text.for_output(line(event)))
    return 0


def line(event: Object) -> str:
    """An event as docker prints it: time, kind, action, id and attributes."""
    moment = event.get("timeNano") or event["time"] * _NANO
    seconds = moments.rfc3339(moment // _NANO)
    zone = seconds[19:]
    actor = event.get("Actor") or {}
    attributes = ", ".join([f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items())])
    parts = f"{seconds[:19]}.{moment % _NANO:09}{zone} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{parts} ({attributes})" if attributes else parts


COMMAND = Command(
    events,
    "[OPTIONS]",
    (
        FILTERS,
        SHORT_FORMAT[:1] + ("",) + SHORT_FORMAT[2:],
        ("since", "", STRING, "Show all events created since a time or for a duration"),
        ("until", "", STRING, "Stream events until a time"),
    ),
    0,
    0,
    examples=(("events --filter event=die --since 1h", "what ended in the last hour, and from now on"),),
)

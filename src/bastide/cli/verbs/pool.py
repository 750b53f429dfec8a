"""`bastide system pool` and `bastide system prewarm`."""

from __future__ import annotations

from bastide.cli.grammar import BYTES, Command, Options
from bastide.cli.show import table, text, units
from bastide.cli.verbs.formats import SHORT_FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object

_TITLES = ["IMAGE", "MEMORY", "CPUS", "INTERFACES", "READY", "WANTED", "USED"]


def pool(client: Client, options: Options) -> int:
    """Show the VMs that wait for a container, or set how much memory they may use."""
    system = client.system
    state = system.resize_pool(options.number("memory")) if "memory" in options else system.pool()
    form = options.text("format")
    if form:
        text.out_made_safe(table.each("{{json .}}" if form == "json" else form, [state])[0])
        return 0
    text.out(_summary(state))
    rows = [_row(shape) for shape in state.get("Shapes") or []]
    if rows:
        table.columns(_TITLES, rows)
    return 0


def _summary(state: Object) -> str:
    if state.get("Reason"):
        reason = text.one_line(str(state["Reason"]))
        return f"Off: {reason}. `system pool --memory 512m` turns it on until the daemon ends, pool_memory for good."
    used, limit = (units.binary_size(state.get(key) or 0) for key in ("Used", "Limit"))
    return f"{used} of {limit} used"


def _row(shape: Object) -> list[str]:
    return [
        str(shape.get("Image") or "<any>"),
        units.binary_size(shape.get("Memory") or 0),
        str(shape.get("Cpus")),
        str(shape.get("Interfaces")),
        str(shape.get("Ready")),
        str(shape.get("Wanted")),
        units.binary_size(shape.get("Used") or 0),
    ]


def prewarm(client: Client, options: Options) -> int:
    """Make what the first VM, or the first of each image, would wait for."""
    client.system.prewarm(options.arguments)
    return 0


COMMAND = Command(
    pool,
    "[OPTIONS]",
    (("memory", "m", BYTES, "How much memory they may use; 0 turns the pool off"), SHORT_FORMAT),
    0,
    0,
    details="VMs of the images that are used wait, restored and stopped, so that a start need not restore one.",
    examples=(("system pool -m 1g", "until the daemon's end"),),
)
PREWARM = Command(
    prewarm,
    "[IMAGE...]",
    (),
    0,
    None,
    details="Without an image: the templates that VMs of any image are restored from. First use makes them, too.",
    examples=(("system prewarm debian:12", "before the first `run --isolation vm debian:12`"),),
)

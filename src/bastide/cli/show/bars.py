"""Progress bars on a terminal, by `rich`; imported only when there is something to draw."""

from __future__ import annotations

import os
import sys

from bastide.cli.show import text
from bastide.cli.show.progress import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.progress import Progress, TaskID

    from bastide.client import Object


def find_packages() -> None:
    """Make the environment's packages importable: `python -I -S` leaves them out, because `site` is slow."""
    if sys.flags.no_site:
        prefix = os.path.dirname(os.path.dirname(sys.executable))
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        folder = f"{prefix}/lib/{name}/site-packages"
        if folder not in sys.path:
            sys.path.append(folder)


def show(messages: Iterable[Object], descriptor: int, aux: Callable[[Object], None] | None) -> None:
    """Draw the messages: a bar for each id that moves, a line for everything else."""
    find_packages()
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
    except ImportError:
        _lines(messages, descriptor, aux)
        return
    console = Console(file=sys.stderr if descriptor == 2 else sys.stdout, highlight=False)
    columns = (
        TextColumn("{task.fields[layer]}: {task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=8) as progress:
        tasks: dict[str, TaskID] = {}
        for message in messages:
            _draw(progress, tasks, message, aux)


def _draw(progress: Progress, tasks: dict[str, TaskID], message: Object, aux: Callable[[Object], None] | None) -> None:
    layer, status = text.safe(str(message.get("id") or "")), text.safe(str(message.get("status") or ""))
    if "stream" in message or (status and not layer) or status.startswith(("Pulling from", "Digest", "Status")):
        line = text.safe((plain(message) or status).rstrip("\n"))
        if line:
            progress.console.print(line, markup=False, soft_wrap=True)
    elif layer:
        if layer not in tasks:
            tasks[layer] = progress.add_task(status, total=None, layer=layer)
        detail = message.get("progressDetail") or {}
        current, total = detail.get("current"), detail.get("total")
        if total:
            progress.update(tasks[layer], description=status, completed=current or 0, total=total)
        elif status.endswith(("complete", "exists", "Pushed")):
            known = progress.tasks[tasks[layer]].total or 1
            progress.update(tasks[layer], description=status, completed=known, total=known)
        else:
            progress.update(tasks[layer], description=status)
    elif aux is not None and message.get("aux"):
        aux(message["aux"])


def _lines(messages: Iterable[Object], descriptor: int, aux: Callable[[Object], None] | None) -> None:
    for message in messages:
        line = plain(message)
        if line is not None:
            text.write(descriptor, text.safe(line).encode("utf-8", "replace"))
        elif aux is not None and message.get("aux"):
            aux(message["aux"])

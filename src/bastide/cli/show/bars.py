"""Progress bars on a terminal, by `rich`; imported only when there is something to draw."""

from __future__ import annotations

import os
import sys

from bastide.cli.show import text
from bastide.cli.show.progress import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.progress import Progress, ProgressColumn, TaskID

    from bastide.client import Object

_DONE = ("complete", "exists", "Pushed")


def find_packages() -> None:
    """Make the environment's packages importable: `python -I -S` leaves them out, because `site` is slow."""
    if sys.flags.no_site:
        prefix = os.path.dirname(os.path.dirname(sys.executable))
        folder = f"{prefix}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        if folder not in sys.path:
            sys.path.append(folder)


class Board:
    """Draws messages: a bar for each layer that moves, a line for everything else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, messages: Iterable[Object], aux: Callable[[Object], None] | None) -> None:
        """Draw until the messages end."""
        try:
            for message in messages:
                if aux is not None and message.get("aux"):
                    aux(message["aux"])
                elif message.get("id") and not str(message.get("status", "")).startswith("Pulling from"):
                    self._layer(message)
                else:
                    self._line(message)
        finally:
            self._stop()

    def _line(self, message: Object) -> None:
        line = plain(message)
        if line is None:
            return
        self._stop()
        text.write(self._descriptor, text.safe(line).encode("utf-8", "replace"))

    def _layer(self, message: Object) -> None:
        progress = self._running()
        layer, status = text.safe(str(message["id"])), text.safe(str(message.get("status") or ""))
        if layer not in self._tasks:
            self._tasks[layer] = progress.add_task(status, total=None, layer=layer)
        task = self._tasks[layer]
        detail = message.get("progressDetail") or {}
        if detail.get("total"):
            progress.update(task, description=status, completed=detail.get("current") or 0, total=detail["total"])
        elif status.endswith(_DONE):
            total = next((known.total for known in progress.tasks if known.id == task), None) or 1
            progress.update(task, description=status, completed=total, total=total)
        else:
            progress.update(task, description=status)

    def _running(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            stream = open(self._descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it is not ours
            console = Console(file=stream, highlight=False)
            texts = [TextColumn(f"{{task.{name}}}", markup=False) for name in ("fields[layer]", "description")]
            columns = (*texts, BarColumn(bar_width=30), _size_column())
            self._progress = Progress(*columns, console=console, refresh_per_second=8)
            self._progress.start()
        return self._progress

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._tasks = None, {}


def _size_column() -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    from bastide.cli.show.units import human_size

    class Size(ProgressColumn):
        """How much is done of how much, in docker's units; nothing where bytes are not counted."""

        def render(self, task: Task) -> Text:
            if not task.total or task.total <= 1:
                return Text("")
            return Text(f"{human_size(task.completed)}/{human_size(task.total)}")

    return Size()


def show(messages: Iterable[Object], descriptor: int, aux: Callable[[Object], None] | None) -> None:
    """Draw messages; as plain lines where `rich` is not installed."""
    find_packages()
    try:
        import rich.progress as _rich  # noqa: F401
    except ImportError:
        for message in messages:
            line = plain(message)
            if aux is not None and message.get("aux"):
                aux(message["aux"])
            elif line is not None:
                text.write(descriptor, text.safe(line).encode("utf-8", "replace"))
        return
    Board(descriptor).show(messages, aux)

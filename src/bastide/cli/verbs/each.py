"""One action for each argument: a failure is printed, the others go on, and the status is 1."""

from __future__ import annotations

from bastide.cli.show import text
from bastide.client import Unreachable
from bastide.model.errors import BastideError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def for_each(names: Sequence[str], action: Callable[[str], object], *, silent: bool = False) -> int:
    """Act on each name and print it (unless `silent`); the exit status."""
    failed = False
    for name in names:
        try:
            action(name)
        except Unreachable:
            raise
        except BastideError as error:
            failed = True
            text.err(f"Error response from daemon: {error.message}")
        else:
            if not silent:
                text.out(name)
    return 1 if failed else 0

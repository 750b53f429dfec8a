"""`bastide inspect`, and `inspect` of each noun."""

from __future__ import annotations

from bastide.cli.grammar import STRING, SWITCH, Command, CommandError, Options
from bastide.cli.show import text
from bastide.cli.verbs.formats import SHORT_FORMAT
from bastide.client import Unreachable, codec
from bastide.model.errors import BastideError, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bastide.client import Client, Object

_BAD_TEMPLATE = 64  # docker's own status
_ORDER = ("container", "image", "network", "volume")


def _getters(client: Client, options: Options) -> dict[str, Callable[[str], Object]]:
    size, verbose = options.on("size"), options.on("verbose")
    return {
        "container": lambda name: client.containers.inspect(name, size),
        "image": lambda name: client.images.inspect(name),
        "network": lambda name: client.networks.inspect(name, verbose),
        "volume": lambda name: client.volumes.inspect(name),
    }


def inspect(client: Client, options: Options) -> int:
    """Show objects of any kind, or of the one that `--type` names."""
    kind = options.text("type")
    if "type" in options and kind not in _ORDER:
        known = ", ".join(f'"{name}"' for name in _ORDER)
        known = ", ".join([f'"{name}"' for name in _ORDER])
        raise CommandError(f'unknown type: "{kind}": must be one of {known}')
    return show(client, options, kind)


def show(client: Client, options: Options, kind: str) -> int:
    """Print what was found; what was not is said on standard error, and the status is 1."""
    getters = _getters(client, options)
    kinds = (kind,) if kind else _ORDER
    found: list[Object] = []
    problems: list[str] = []
    for name in options.arguments:
        try:
            found.append(_first(getters, kinds, name))
        except Unreachable:
            raise
        except (BastideError, CommandError) as error:
            problems.append(f"Error response from daemon: {error}" if kind else str(error))
    _print(found, options.text("format"))
    for problem in problems:
        text.err(text.one_line(problem))
    return 1 if problems else 0


def _first(getters: dict[str, Callable[[str], Object]], kinds: tuple[str, ...], name: str) -> Object:
    for kind in kinds:
        try:
            return getters[kind](name)
        except (NotFound, InvalidArgument):
            if len(kinds) == 1:
                raise
    raise CommandError(f"Error: No such object: {name}")


def _print(found: list[Object], form: str) -> None:
    if not form:
        text.out(codec.pretty(found))
        return
    if form == "json":
        text.out(codec.go(found))
        return
    from bastide.cli.show.evaluate import Template
    from bastide.cli.show.template import TemplateError

    try:
        template = Template(form)
    except TemplateError as error:
        raise CommandError(f"template parsing error: {error}", _BAD_TEMPLATE) from None
    try:
        for item in found:
            text.out_made_safe(template.render(item))
    except TemplateError as error:
        raise CommandError(f"template parsing error: {error}") from None


def _of(kind: str) -> Callable[[Client, Options], int]:
    return lambda client, options: show(client, options, kind)


_SIZE = ("size", "s", SWITCH, "Display total file sizes of containers")

COMMAND = Command(
    inspect,
    "[OPTIONS] NAME|ID [NAME|ID...]",
    (SHORT_FORMAT, _SIZE, ("type", "", STRING, "Only inspect objects of this kind: " + ", ".join(_ORDER))),
    1,
    examples=(
        ("inspect -f '{{.State.Pid}}' web", "one fact about a container"),
        ("inspect -f '{{range .Mounts}}{{println .Destination}}{{end}}' web", "where its mounts are"),
    ),
)
CONTAINER = Command(_of("container"), "[OPTIONS] CONTAINER [CONTAINER...]", (SHORT_FORMAT, _SIZE), 1)
IMAGE = Command(_of("image"), "[OPTIONS] IMAGE [IMAGE...]", (SHORT_FORMAT,), 1)
NETWORK = Command(
    _of("network"),
    "[OPTIONS] NETWORK [NETWORK...]",
    (SHORT_FORMAT, ("verbose", "v", SWITCH, "Verbose output for diagnostics")),
    1,
)
VOLUME = Command(_of("volume"), "[OPTIONS] VOLUME [VOLUME...]", (SHORT_FORMAT,), 1)

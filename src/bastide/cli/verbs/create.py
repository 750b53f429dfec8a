"""`bastide create`: the API's create, with a pull when the image is not there."""

from __future__ import annotations

from bastide.cli.grammar import Command, CommandError, Options, UsageError
from bastide.cli.options import container, flags
from bastide.cli.show import text
from bastide.model.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object

_ENGINE_ERROR = 125
_PULLS = ("always", "missing", "never")


def create(client: Client, options: Options) -> int:
    """Create a container and print its id."""
    attached = tuple(word.lower() for word in options.all("attach")) or ("stdout", "stderr")
    if options.on("interactive") and "attach" not in options:
        attached += ("stdin",)
    text.out(make(client, options, container.body(options, attached)))
    return 0


def make(client: Client, options: Options, body: Object) -> str:
    """Create a container, pulling its image if need be; the id. Warnings go to standard error."""
    policy = options.text("pull", "missing")
    if policy not in _PULLS:
        raise UsageError(f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"')
    _check_cidfile(options)
    if policy == "always":
        _pull(client, options, body["Image"])
    name, platform = options.text("name"), options.text("platform")
    try:
        answer = client.containers.create(body, name, platform)
    except NotFound as error:
        if policy != "missing" or not error.message.lower().startswith("no such image"):
            raise
        from bastide.cli.options import references

        image, tag = references.split(body["Image"])
        familiar = f"{image}{'@' if ':' in tag else ':'}{tag or 'latest'}"
        text.err(f"Unable to find image '{familiar}' locally")
        _pull(client, options, body["Image"])
        answer = client.containers.create(body, name, platform)
    for warning in answer.get("Warnings") or []:
        text.err(f"WARNING: {text.one_line(warning)}")
    _write_cidfile(options, answer["Id"])
    return str(answer["Id"])


def _pull(client: Client, options: Options, reference: str) -> None:
    from bastide.cli.verbs import pull

    insecure = ",".join(options.all("insecure-options"))
    platform, quiet = options.text("platform"), options.on("quiet")
    pull.fetch(client, reference, platform, quiet=quiet, descriptor=2, insecure=insecure)


def _check_cidfile(options: Options) -> None:
    path = options.text("cidfile")
    if not path:
        return
    import os

    if os.path.lexists(path):
        raise CommandError(
            f"container ID file found, make sure the other container isn't running or delete {path}", _ENGINE_ERROR
        )


def _write_cidfile(options: Options, identity: str) -> None:
    if options.text("cidfile"):
        with open(options.text("cidfile"), "x") as file:
            file.write(identity)


COMMAND = Command(
    create,
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags.CREATE,
    1,
    carries=True,
    examples=(("create --name web -p 8080:80 nginx", "a container that `bastide start web` will run"),),
)

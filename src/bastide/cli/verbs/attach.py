"""`bastide attach`."""

from __future__ import annotations

from bastide.cli.grammar import ON, STRING, SWITCH, Command, CommandError, Options
from bastide.client.codec import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def attach(client: Client, options: Options) -> int:
    """Carry a running container's streams; its exit status."""
    from bastide.cli.streams import caught
    from bastide.cli.verbs import run

    details = client.containers.inspect(options.arguments[0])
    identity, state, config = details["Id"], details["State"], details["Config"]
    if not state["Running"]:
        raise CommandError("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise CommandError("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise CommandError("You cannot attach to a restarting container, wait until it is running")
    tty, keys = bool(config.get("Tty")), options.text("detach-keys")
    stdin = not options.on("no-stdin") and bool(config.get("OpenStdin"))
    waiting = client.containers.waiting(identity)
    stream = client.containers.attach(
        identity, {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": keys}
    )
    answer = client.check(waiting.answer())
    with caught(terminal=tty, proxy=options.on("sig-proxy", True) and not tty) as signals:
        if run.converse(client, identity, stream, tty=tty, stdin=stdin, keys=keys, signals=signals):
            return 0
        return run.status(decode(answer.read()))


COMMAND = Command(
    attach,
    "[OPTIONS] CONTAINER",
    (
        ("detach-keys", "", STRING, "Override the key sequence for detaching a container"),
        ("no-stdin", "", SWITCH, "Do not attach STDIN"),
        ("sig-proxy", "", ON, "Proxy all received signals to the process"),
    ),
    1,
    1,
)

"""`bastide`: finds the command, reads its line, runs it, and turns errors into one line and a status."""

from __future__ import annotations

import posix
import sys

from bastide.cli import commands
from bastide.cli.grammar import CommandError, Options, UsageError, parse
from bastide.cli.show import text
from bastide.client import Client, Endpoint, Unreachable, environment
from bastide.model.errors import BastideError, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bastide.cli.grammar import Command

_INTERRUPTED = 130
_ENGINE_ERROR = 125
_EACCES = 13
# Commands whose own errors must not look like the exit status of what they run.
_CARRIERS = ("run", "create")


def entry() -> None:
    """The program: runs and leaves at once, without the interpreter's long good-bye."""
    code = main(sys.argv[1:])
    sys.stdout.flush()
    posix._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(words)
    except UsageError as error:
        text.err(f"bastide: {text.one_line(str(error))}")
        text.err("See 'bastide --help'.")
        return error.code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1


def _main(words: list[str]) -> int:
    given, words = _global_options(words)
    if words and words[0] == "help":
        words = [*words[1:], "--help"]
    if "version" in given:
        from bastide import __version__

        text.out(f"bastide version {__version__}")
        return 0
    if "help" in given or not words or words[0] == "--help":
        return _show_top()
    name, used = commands.resolve(words)
    if not name:
        return _group(words)
    return run(name, commands.load(name), words[used:], given)


def run(name: str, command: Command, words: list[str], given: Options) -> int:
    """Run one command with its words; its exit status."""
    try:
        options = parse(name, command, words)
        if "help" in options:
            from bastide.cli import help as pages

            text.put(pages.page(name, command, pages.width()))
            return 0
    except UsageError as error:
        return _misused(name, str(error), error.code)
    try:
        return command.run(_client(given), options)
    except UsageError as error:
        message = str(error)
        return _misused(
            name, message if message.startswith("invalid argument") else _prefix(name) + message, error.code
        )
    except CommandError as error:
        text.err(_prefix(name) + text.one_line(str(error)))
        return error.code
    except Unreachable as error:
        text.err(error.message + _hint(error))
        return _ENGINE_ERROR if name in _CARRIERS else 1
    except BastideError as error:
        origin = "" if type(error).__name__ == "StreamError" else "Error response from daemon: "
        text.err(f"{_prefix(name)}{origin}{error.message}")
        return _ENGINE_ERROR if name in _CARRIERS else getattr(error, "code", 0) or 1
    except OSError as error:
        if "debug" in given:
            raise
        where = f"{error.filename}: " if error.filename else ""
        text.err(f"bastide: {where}{error.strerror or error}")
        return _ENGINE_ERROR if name in _CARRIERS else 1
    except Exception as error:
        if "debug" in given:
            raise
        problem = text.one_line(str(error))
        text.err(f"bastide: unexpected {type(error).__name__}: {problem} (bastide --debug {name} … tells where)")
        return _ENGINE_ERROR if name in _CARRIERS else 1


def _hint(error: Unreachable) -> str:
    """What to do about a daemon that does not answer."""
    if error.errno == _EACCES:
        return " Use sudo, or become a member of the daemon's group."
    if error.errno and posix.geteuid() != 0 and Endpoint.from_environment(environment()).given is False:
        return " Root starts it: sudo bastided, or any bastide command with sudo."
    return ""


def _misused(name: str, message: str, code: int) -> int:
    text.err(text.one_line(message))
    text.err(f"See 'bastide {name} --help'.")
    return code


def _prefix(name: str) -> str:
    return "bastide: " if name in _CARRIERS else ""


def _global_options(words: list[str]) -> tuple[Options, list[str]]:
    """Read the flags before the command. The words from the command on are handed back."""
    if not words or not words[0].startswith("-"):
        return Options(""), words
    from bastide.cli import help as pages
    from bastide.cli.grammar import Command

    for word in words:
        if word in ("-c", "--context") or word.startswith("--context="):
            raise UsageError("docker's contexts are not used: name the daemon with --host")
        if not word.startswith("-"):
            break
    frame = Command(lambda _client, _options: 0, flags=pages.GLOBAL_FLAGS, carries=True)
    options = parse("", frame, words)
    return options, options.arguments


def _client(given: Options) -> Client:
    variables = environment()
    if given.values:
        variables = dict(variables)
        if "config" in given:
            import os

            os.environ["DOCKER_CONFIG"] = variables["DOCKER_CONFIG"] = given.text("config")
        if "host" in given:
            variables["BASTIDE_HOST"] = given.text("host")
        if given.on("tls"):
            variables["DOCKER_TLS"] = "1"
        if given.on("tlsverify"):
            variables["DOCKER_TLS_VERIFY"] = "1"
    try:
        endpoint = Endpoint.from_environment(variables)
    except InvalidArgument as error:
        raise CommandError(error.message) from None
    if endpoint.tls is not None:
        endpoint.tls.authority = given.text("tlscacert", endpoint.tls.authority)
        endpoint.tls.certificate = given.text("tlscert", endpoint.tls.certificate)
        endpoint.tls.key = given.text("tlskey", endpoint.tls.key)
    if not endpoint.given and variables.get("DOCKER_CONTEXT", "default") not in ("", "default"):
        text.err("DOCKER_CONTEXT is ignored: name the daemon with BASTIDE_HOST or DOCKER_HOST")
    return Client(endpoint, None if endpoint.given else lambda: _start_daemon(endpoint))


def _start_daemon(endpoint: Endpoint) -> bool:
    from bastide.cli import launch

    return launch.start(endpoint.address)


def _show_top() -> int:
    from bastide.cli import help as pages

    text.put(pages.top(pages.width()))
    return 0


def _group(words: list[str]) -> int:
    """A group alone, its help, or a word that is no command."""
    if words[0] not in commands.GROUPS:
        raise UsageError(f"unknown command: bastide {words[0]}", 1)
    if len(words) > 1 and not words[1].startswith("-"):
        text.err(f"bastide: unknown command: bastide {words[0]} {words[1]}")
        text.err(f"See 'bastide {words[0]} --help'.")
        return 1
    from bastide.cli import help as pages

    text.put(pages.group(words[0]))
    return 0

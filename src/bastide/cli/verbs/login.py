"""`bastide login` and `bastide logout`."""

from __future__ import annotations

import os

from bastide.cli import credentials
from bastide.cli.grammar import STRING, SWITCH, Command, CommandError, Options, UsageError
from bastide.cli.options import references
from bastide.cli.show import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client


def _registry(options: Options) -> str:
    server = options.arguments[0] if options.arguments else references.HUB
    if server.startswith(("http://", "https://")):
        server = server.partition("://")[2]
    return references.auth_key(server.partition("/")[0] if server != references.HUB else server)


def login(client: Client, options: Options) -> int:
    """Check credentials with a registry and keep them."""
    key = _registry(options)
    user, password = options.text("username"), options.text("password")
    if options.on("password-stdin"):
        if password:
            raise UsageError("--password and --password-stdin are mutually exclusive", 1)
        if not user:
            raise UsageError("Must provide --username with --password-stdin", 1)
        password = _standard_input()
    elif password:
        text.err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    known = {} if user else credentials.find(key)
    if known and not password:
        user, password = known.get("username", ""), known.get("password", "")
    else:
        user, password = _ask(user, password)
    answer = client.system.login({"username": user, "password": password, "serveraddress": key}) or {}
    where = credentials.keep(key, user, password, str(answer.get("IdentityToken") or ""))
    if where.endswith(".json"):
        text.err(f"WARNING! Your credentials are stored unencrypted in '{where}'; configure a credential helper.")
    text.out(str(answer.get("Status") or "Login Succeeded"))
    return 0


def _standard_input() -> str:
    blocks = []
    while block := os.read(0, 65536):
        blocks.append(block)
    return b"".join(blocks).decode().removesuffix("\n").removesuffix("\r")


def _ask(user: str, password: str) -> tuple[str, str]:
    if user and password:
        return user, password
    if not os.isatty(0):
        raise CommandError("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        user = input("Username: ").strip()
    if not user:
        raise CommandError("username is required")
    if not password:
        import getpass

        password = getpass.getpass("Password: ")
    if not password:
        raise CommandError("password is required")
    return user, password


def logout(_client: Client, options: Options) -> int:
    """Forget the credentials of a registry."""
    key = _registry(options)
    name = key if options.arguments else "https://index.docker.io/v1/"
    if not credentials.forget(key):
        text.out(f"Not logged in to {name}")
    else:
        text.out(f"Removing login credentials for {name}")
    return 0


COMMAND = Command(
    login,
    "[OPTIONS] [SERVER]",
    (
        ("password", "p", STRING, "Password or access token (seen by others on this host: prefer stdin)"),
        ("password-stdin", "", SWITCH, "Take the password or access token from stdin"),
        ("username", "u", STRING, "Username"),
    ),
    0,
    1,
    details="Docker Hub, if no server is named.",
    examples=(("login -u me --password-stdin registry.example.com < token", "without a terminal"),),
)
LOGOUT = Command(logout, "[SERVER]", (), 0, 1, details="Docker Hub, if no server is named.")

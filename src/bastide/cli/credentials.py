"""Registry credentials of this user: `config.json` and credential helpers, as docker keeps them."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode, urlsafe_b64encode

from bastide.cli.grammar import CommandError
from bastide.client.codec import decode, encode, pretty
from bastide.client.endpoint import configuration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Object

_TOKEN_USER = "<token>"  # a helper's way to say that the secret is an identity token


def _path() -> str:
    return os.path.join(configuration(os.environ), "config.json")


def load() -> Object:
    """The configuration; empty when there is none. Raises CommandError when it cannot be read."""
    try:
        with open(_path(), "rb") as file:
            content = decode(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError(f"could not read {_path()}: {error}") from error
    return content if isinstance(content, dict) else {}


def save(content: Object) -> None:
    """Replace the configuration at one stroke; only its owner can read it."""
    path = _path()
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(pretty(content, "\t") + "\n")
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def find(key: str) -> dict[str, str]:
    """Credentials for a registry: `username` and `password`, or `identitytoken`; empty when unknown."""
    content = load()
    helper = (content.get("credHelpers") or {}).get(key) or content.get("credsStore")
    if helper:
        answer = _ask(str(helper), "get", key.encode(), quiet=True)
        if not answer:
            return {}
        if answer.get("Username") == _TOKEN_USER:
            return {"identitytoken": str(answer["Secret"]), "serveraddress": key}
        return {
            "username": str(answer["Username"]),
            "password": str(answer["Secret"]),
            "serveraddress": key,
        }
    entry = (content.get("auths") or {}).get(key)
    return _from_entry(key, entry) if isinstance(entry, dict) else {}


def _from_entry(key: str, entry: Object) -> dict[str, str]:
    found = {"serveraddress": key}
    try:
        user, _, password = b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
    except ValueError:
        raise CommandError(f"the credentials of {key} in {_path()} are not base64") from None
    if user:
        found |= {"username": user, "password": password.rstrip("\0")}
    if entry.get("identitytoken"):
        found["identitytoken"] = str(entry["identitytoken"])
    return found if len(found) > 1 else {}


def keep(key: str, username: str, password: str, token: str) -> str:
    """Remember credentials; where they went, for the user to know."""
    content = load()
    helper = (content.get("credHelpers") or {}).get(key) or content.get("credsStore")
    auths = content.setdefault("auths", {})
    if helper:
        secret = {"ServerURL": key, "Username": _TOKEN_USER if token else username, "Secret": token or password}
        _ask(str(helper), "store", encode(secret))
        auths[key] = {}
        save(content)
        return f"docker-credential-{helper}"
    auths[key] = {"auth": b64encode(f"{username}:{'' if token else password}".encode()).decode()}
    if token:
        auths[key]["identitytoken"] = token
    save(content)
    return _path()


def forget(key: str) -> bool:
    """Remove credentials; whether there were any."""
    content = load()
    helper = (content.get("credHelpers") or {}).get(key) or content.get("credsStore")
    if helper:
        _ask(str(helper), "erase", key.encode(), quiet=True)
    known = key in (content.get("auths") or {})
    if known:
        del content["auths"][key]
        save(content)
    return known or bool(helper)


def header(credentials: dict[str, str]) -> str:
    """The X-Registry-Auth header: URL-safe base64 of JSON; "" for none."""
    return urlsafe_b64encode(encode(credentials)).decode() if credentials else ""


def _ask(helper: str, action: str, request: bytes, quiet: bool = False) -> Object:
    """Run a credential helper. `quiet`: its refusal means that it knows nothing."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, action], input=request, capture_output=True, check=False)
    except OSError as error:
        raise CommandError(f"could not run the credential helper {program}: {error.strerror}") from error
    if done.returncode:
        if quiet:
            return {}
        raise CommandError(f"{program} {action}: {done.stdout.decode(errors='replace').strip()}")
    answer = decode(done.stdout) if action == "get" and done.stdout else {}
    return answer if isinstance(answer, dict) else {}

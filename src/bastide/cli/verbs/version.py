"""`bastide version`."""

from __future__ import annotations

import os
import sys

from bastide import __version__
from bastide.cli.grammar import Command, Options
from bastide.cli.show import table, text
from bastide.cli.verbs.formats import SHORT_FORMAT
from bastide.client import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object

_WIDTH = 18
_ENGINE_DETAILS = (
    ("API version", "ApiVersion"),
    ("Go version", "GoVersion"),
    ("Git commit", "GitCommit"),
    ("Built", "BuildTime"),
    ("OS/Arch", "Os"),
    ("Experimental", "Experimental"),
)


def version(client: Client, options: Options) -> int:
    """Show the versions of this program and of the daemon."""
    server, problem = None, ""
    try:
        server = client.system.version()
    except Unreachable as error:
        problem = error.message
    ours = _client(server)
    form = options.text("format")
    if form:
        facts = {"Client": ours, "Server": server}
        text.out_made_safe(table.each("{{json .}}" if form == "json" else form, [facts])[0])
    else:
        text.out("\n".join(_client_lines(ours)))
        if server is not None:
            text.out("\n".join(["", *_server_lines(server)]))
    if problem:
        text.err(problem)
    return 1 if problem else 0


def _client(server: Object | None) -> Object:
    return {
        "Version": __version__,
        "ApiVersion": (server or {}).get("ApiVersion", ""),
        "PythonVersion": sys.version.split()[0],
        "Os": sys.platform,
        "Arch": _architecture(os.uname().machine),
        "Context": "default",
    }


def _architecture(machine: str) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _client_lines(ours: Object) -> list[str]:
    return [
        "Client:",
        _line("Version", ours["Version"]),
        _line("API version", ours["ApiVersion"]),
        _line("Python version", ours["PythonVersion"]),
        _line("OS/Arch", f"{ours['Os']}/{ours['Arch']}"),
    ]


def _server_lines(server: Object) -> list[str]:
    name = (server.get("Platform") or {}).get("Name") or ""
    lines = [f"Server: {name}".rstrip()]
    components = server.get("Components") or [{"Name": "Engine", "Version": server["Version"], "Details": server}]
    for component in components:
        details = component.get("Details") or {}
        lines += [f" {component['Name']}:", _line("Version", component["Version"], 2)]
        if component["Name"] != "Engine":
            lines += [_line("GitCommit", details["GitCommit"], 2)] if "GitCommit" in details else []
            continue
        for title, key in _ENGINE_DETAILS:
            if key in details:
                lines.append(_line(title, _detail(key, details), 2))
    return lines


def _detail(key: str, details: Object) -> str:
    if key == "ApiVersion":
        return f"{details[key]} (minimum version {details.get('MinAPIVersion', '')})"
    if key == "Os":
        return f"{details[key]}/{details.get('Arch', '')}"
    return str(details[key])


def _line(title: str, value: object, indent: int = 1) -> str:
    return f"{'':<{indent}}{title + ':':<{_WIDTH}} {value}"


COMMAND = Command(version, "[OPTIONS]", (SHORT_FORMAT,), 0, 0)

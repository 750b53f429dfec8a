"""What an OCI runtime says when it cannot start a process, in the words that Docker's clients know.

crun: ``executable file `foo` not found in $PATH``, `open executable: Permission denied`, and in newer versions
``the path `/etc` is not a regular file``;
runc: `exec: "foo": executable file not found in $PATH`, `exec: "/etc": is a directory`.
"""

from __future__ import annotations

import errno
import re

from bastide.model.errors import BastideError, HostError, NotFound, PermissionDenied

_LEVEL = re.compile(r'.*level=(?:error|fatal) msg="(.*)"')
_MISSING = ("not found in $PATH", "no such file or directory")
_FORBIDDEN = {
    "is not a regular file": "is a directory",
    "is a directory": "is a directory",
    "permission denied": "permission denied",
    "operation not permitted": "permission denied",
    "exec format error": "exec format error",
}
"""What is said, and Docker's word for it."""


class RuntimeFailed(HostError):
    """The runtime program failed for a reason that lies with the host or itself."""

    def __init__(self, text: str) -> None:
        super().__init__("runtime", errno.EIO)
        self.args = (text,)


def refusal(said: str, command: str, verb: str) -> BastideError:
    """The error for what a runtime wrote to stderr when `command` was to be started.

    NotFound for a missing program (127 in a shell), PermissionDenied for one that cannot be executed (126).
    """
    text = _last(said)
    before = {"create": "OCI runtime create failed", "exec": "OCI runtime exec failed: exec failed"}[verb]
    start = f'{before}: unable to start container process: exec: "{command}"'
    lowered = text.lower()
    about_command = any(word in lowered for word in ("executable", "exec:", "execve", "is not a regular file"))
    if about_command and any(words.lower() in lowered for words in _MISSING):
        if "/" in command:
            return NotFound(f"{start}: stat {command}: no such file or directory: unknown")
        return NotFound(f"{start}: executable file not found in $PATH: unknown")
    if about_command and (found := next((word for said, word in _FORBIDDEN.items() if said in lowered), "")):
        return PermissionDenied(f"{start}: {found}: unknown")
    return RuntimeFailed(f"{before}: {text}: unknown")


def _last(said: str) -> str:
    """The last line that says something, without the dress that runc puts on it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return "the runtime ended without a word"
    match = _LEVEL.match(lines[-1])
    return match[1].replace('\\"', '"') if match else lines[-1]

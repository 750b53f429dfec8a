from __future__ import annotations

import pytest

from bastide.model.errors import BastideError, HostError, NotFound, PermissionDenied
from bastide.runtime.refusals import refusal


@pytest.mark.parametrize(
    ("said", "command", "kind", "end"),
    [
        (
            "executable file `foo` not found in $PATH: No such file or directory",
            "foo",
            NotFound,
            'exec: "foo": executable file not found in $PATH: unknown',
        ),
        (
            "executable file `/x/foo` not found: No such file or directory",
            "/x/foo",
            NotFound,
            'exec: "/x/foo": stat /x/foo: no such file or directory: unknown',
        ),
        ("open executable: Permission denied", "/f", PermissionDenied, 'exec: "/f": permission denied: unknown'),
        ("open executable: Operation not permitted", "/f", PermissionDenied, 'exec: "/f": permission denied: unknown'),
        (
            'time="x" level=error msg="runc create failed: exec: \\"foo\\": executable file not found in $PATH"',
            "foo",
            NotFound,
            'exec: "foo": executable file not found in $PATH: unknown',
        ),
        (
            "the path `/etc` is not a regular file: Operation not permitted",
            "/etc",
            PermissionDenied,
            'exec: "/etc": is a directory: unknown',
        ),
        ('exec: "/etc": is a directory', "/etc", PermissionDenied, 'exec: "/etc": is a directory: unknown'),
        ("mount `/a`: No such file or directory", "sh", HostError, "mount `/a`: No such file or directory: unknown"),
        ("", "sh", HostError, "without a word: unknown"),
    ],
)  # fmt: skip
def test_words(said: str, command: str, kind: type[BastideError], end: str) -> None:
    error = refusal(f"warning\n{said}\n", command, "create") if said else refusal("", command, "create")
    assert type(error).__mro__[1] is kind or isinstance(error, kind)
    assert error.message.startswith("OCI runtime create failed: ")
    assert error.message.endswith(end)


def test_exec_has_its_own_beginning() -> None:
    error = refusal("executable file `foo` not found in $PATH", "foo", "exec")
    assert error.message == (
        'OCI runtime exec failed: exec failed: unable to start container process: exec: "foo": '
        "executable file not found in $PATH: unknown"
    )

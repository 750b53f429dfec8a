"""Errors, told apart by what the caller can do about them.

    BastideError
     ├── InvalidArgument     the request is wrong: mend it
     ├── Unauthorized        who are you: log in
     ├── PermissionDenied    you may not
     ├── NotFound            no such object
     ├── Conflict            the object is in another state, or the name is taken
     │    └── NotModified    already as asked for: nothing was done
     ├── ResourceExhausted   a limit or a disk is full
     ├── Unsupported         this host, runtime or image cannot do that
     ├── Unavailable         a peer (registry, daemon, program) does not answer: try again
     ├── HostError           a call to the host failed: says the call, the errno and the path
     └── GuestError          a guest or its agent misbehaved

A message is one line: what failed, on what, why, and what to do next. It carries no HTTP and no
exit code: `api.errors` holds the one table to HTTP statuses, `cli` the one to exit codes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os


class BastideError(Exception):
    """Base of every error that a user may see."""

    @property
    def message(self) -> str:
        """The message as one line."""
        return " ".join(str(self).split())


class InvalidArgument(BastideError):
    """The request is wrong in itself."""


class Unauthorized(BastideError):
    """Credentials are missing or refused."""


class PermissionDenied(BastideError):
    """The caller is known but may not do this, or a policy forbids it."""


class NotFound(BastideError):
    """The named object does not exist."""


class Conflict(BastideError):
    """The object's state, or a name in use, forbids this."""


class NotModified(Conflict):
    """The object is already in the state that was asked for."""


class ResourceExhausted(BastideError):
    """A limit is reached or a file system is full."""


class Unsupported(BastideError):
    """This host, runtime, isolation or image cannot do what was asked."""


class Unavailable(BastideError):
    """A peer does not answer; the same call may work later."""


class HostError(BastideError):
    """A system call failed.

    Parameters: `call`, the call's name; `errno`, its error number; `path`, what it was made on.
    """

    def __init__(self, call: str, errno: int, path: str | os.PathLike[str] = "") -> None:
        import os  # here, because the command line never needs it and it takes 1 ms

        self.call = call
        self.errno = errno
        self.path = os.fspath(path)
        on = f" {self.path}" if self.path else ""
        super().__init__(f"{call}{on}: {os.strerror(errno)}")


class GuestError(BastideError):
    """A guest, or the agent in it, broke the protocol or does not answer."""

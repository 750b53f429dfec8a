"""The one table from error classes to HTTP statuses, and Docker's form of an error's body."""

from __future__ import annotations

import msgspec
from aiohttp import web

from bastide.model import errors

STATUS: dict[type[errors.BastideError], int] = {
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.ResourceExhausted: 507,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.HostError: 500,
    errors.GuestError: 500,
    errors.BastideError: 500,
}


def status(error: errors.BastideError) -> int:
    """The status of an error: that of its nearest class in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def refusal(code: int, message: str) -> web.Response:
    """An answer with Docker's error body, `{"message": …}`; a 304 has no body."""
    if code == 304:
        return web.Response(status=304)
    body = msgspec.json.encode({"message": message}) + b"\n"
    return web.Response(status=code, body=body, content_type="application/json")


def answer(error: errors.BastideError) -> web.Response:
    """The answer that tells a client of `error`."""
    return refusal(status(error), error.message)

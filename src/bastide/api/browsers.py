"""Keeps web pages away from the API: forged requests, DNS rebinding, foreign WebSockets.

A browser sends `Origin` or `Sec-Fetch-Site` with whatever a page makes it ask; no Docker client does.
On TCP without TLS, where a browser could reach the API, the `Host` must also be one that no foreign
name server can hand out: an address, `localhost` or this host's own name. (Fetch standard, "Origin
header"; W3C Fetch Metadata.)
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp import web

from bastide.api.http import EXPOSED
from bastide.model.errors import PermissionDenied

_OWN = frozenset(("none", "same-origin"))


def check(request: web.Request) -> None:
    """Raise PermissionDenied for a request that a web page made."""
    headers = request.headers
    if origin := headers.get("Origin"):
        if urlsplit(origin).netloc != headers.get("Host"):
            raise PermissionDenied(f"requests of web pages are refused: Origin {origin[:200]!r}")
    elif "Sec-Fetch-Site" in headers and headers["Sec-Fetch-Site"] not in _OWN:
        raise PermissionDenied("requests of web pages are refused")
    if request.get(EXPOSED) and not _trusted(headers.get("Host", "")):
        raise PermissionDenied("the Host header must be an address, localhost or this host's name")


def _trusted(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name in ("localhost", socket.gethostname().lower(), socket.getfqdn().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

"""Sizes and spans of time as docker/go-units prints them."""

from __future__ import annotations

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def human_size(size: float, precision: int = 4) -> str:
    """Powers of 1000 in that many digits: `1.98MB`."""
    return _scaled(size, 1000.0, _DECIMAL, precision)


def binary_size(size: float) -> str:
    """Powers of 1024 in four digits: `512MiB`."""
    return _scaled(size, 1024.0, _BINARY, 4)


def _scaled(size: float, base: float, names: tuple[str, ...], precision: int) -> str:
    step = 0
    while size >= base and step < len(names) - 1:
        size /= base
        step += 1
    return f"{size:.{precision}g}{names[step]}"


def human_duration(seconds: float) -> str:
    """`About a minute`, `3 hours`, …"""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ellipsis(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def short_id(identity: str) -> str:
    """Twelve digits of an id, without its algorithm."""
    return identity.partition(":")[2][:12] if ":" in identity else identity[:12]

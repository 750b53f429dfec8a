"""`--network` and the flags that go with it."""

from __future__ import annotations

from bastide.cli.grammar import Options, UsageError
from bastide.cli.options.mounts import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Object


def read(options: Options, config: Object, host: Object) -> None:
    """NetworkMode is the first network; each named network has its endpoint's settings."""
    endpoints: dict[str, Object] = {}
    for word in options.all("network") + options.all("net"):
        name, endpoint = network(word)
        if name in endpoints:
            raise UsageError(f"network {name!r} is specified multiple times")
        endpoints[name] = endpoint
    names = list(endpoints)
    if len(names) > 1 and any(name in ("host", "none") or ":" in name for name in names):
        raise UsageError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    primary = names[0] if names else "default"
    endpoint = endpoints.setdefault(primary, {})
    _of_flags(options, endpoint)
    if "link" in options:
        host["Links"] = options.all("link")
    host["NetworkMode"] = primary
    wanted = {name: settings for name, settings in endpoints.items() if settings or len(names) > 1}
    if wanted:
        config["NetworkingConfig"] = {"EndpointsConfig": wanted}


def network(word: str) -> tuple[str, Object]:
    """A network's name and its endpoint: a name alone, or `name=…,alias=…,ip=…,driver-opt=k=v`."""
    if "=" not in word:
        return word, {}
    name = ""
    endpoint: Object = {}
    for field in fields(word):
        key, mark, value = field.partition("=")
        if not mark:
            raise UsageError(f"invalid field {field} in --network {word}: must be a key=value pair")
        if key == "name":
            name = value
        else:
            _set(endpoint, key, value, word)
    if not name:
        raise UsageError(f"network name/id is not specified in --network {word}")
    return name, endpoint


def _set(endpoint: Object, key: str, value: str, word: str) -> None:
    if key == "alias":
        endpoint.setdefault("Aliases", []).append(value)
    elif key == "ip":
        endpoint.setdefault("IPAMConfig", {})["IPv4Address"] = value
    elif key == "ip6":
        endpoint.setdefault("IPAMConfig", {})["IPv6Address"] = value
    elif key == "link-local-ip":
        endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
    elif key == "mac-address":
        endpoint["MacAddress"] = value
    elif key == "driver-opt":
        option, _, text = value.partition("=")
        endpoint.setdefault("DriverOpts", {})[option] = text
    elif key == "gw-priority" and value.removeprefix("-").isdecimal():
        endpoint["GwPriority"] = int(value)
    else:
        raise UsageError(f"invalid field {key}={value} in --network {word}")


def _of_flags(options: Options, endpoint: Object) -> None:
    """The flags that speak about the first network without naming it."""
    for alias in options.all("network-alias") + options.all("net-alias"):
        endpoint.setdefault("Aliases", []).append(alias)
    for name in ("ip", "ip6"):
        if name in options:
            _set(endpoint, name, options.text(name), "")
    for address in options.all("link-local-ip"):
        _set(endpoint, "link-local-ip", address, "")

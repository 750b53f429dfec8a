"""`--publish` and `--expose`."""

from __future__ import annotations

from bastide.cli.grammar import Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Object

_PROTOCOLS = ("tcp", "udp", "sctp")
_HIGHEST = 65535


def read(options: Options) -> tuple[Object, Object]:
    """ExposedPorts and PortBindings."""
    exposed: Object = {}
    bindings: Object = {}
    for word in options.all("publish"):
        for port, address, host in publish(word):
            exposed[port] = {}
            bindings.setdefault(port, []).append({"HostIp": address, "HostPort": host})
    for word in options.all("expose"):
        if ":" in word:
            raise UsageError(f"invalid port format for --expose: {word}")
        span, protocol = _protocol(word)
        low, high = _span(span, f"invalid range format for --expose: {span}")
        exposed |= {f"{port}/{protocol}": {} for port in range(low, high + 1)}
    return exposed, bindings


def publish(word: str) -> list[tuple[str, str, str]]:
    """`[ip:][host[-host]:]container[-container][/protocol]`: container port, host address, host port each."""
    if "=" in word:
        word = _long_form(word)
    place, protocol = _protocol(word)
    rest, _, container = place.rpartition(":")
    if rest.endswith("]") or ":" not in rest:
        address, host = (rest, "") if rest.endswith("]") else ("", rest)
    else:
        address, _, host = rest.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not container:
        raise UsageError(f"no port specified: {word}<empty>")
    if address and not _is_address(address):
        raise UsageError(f"invalid IP address: {address}")
    low, high = _span(container, f"invalid containerPort: {container}")
    if not host:
        return [(f"{port}/{protocol}", address, "") for port in range(low, high + 1)]
    first, last = _span(host, f"invalid hostPort: {host}")
    if last - first == high - low:
        return [(f"{low + i}/{protocol}", address, str(first + i)) for i in range(high - low + 1)]
    if high == low:  # one container port, any of a range of the host's
        return [(f"{low}/{protocol}", address, host)]
    raise UsageError(f"invalid ranges specified for container and host Ports: {container} and {host}")


def _long_form(word: str) -> str:
    """`target=80,published=8080,protocol=tcp` in the short form."""
    fields = {}
    for part in word.split(","):
        key, mark, value = part.partition("=")
        if not mark or key not in ("target", "published", "protocol", "mode"):
            raise UsageError(f"invalid field {key}")
        fields[key] = value
    return f"{fields.get('published', '')}:{fields.get('target', '')}/{fields.get('protocol', 'tcp')}".lstrip(":")


def _protocol(word: str) -> tuple[str, str]:
    place, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise UsageError(f"invalid proto: {protocol}")
    return place, protocol


def _span(word: str, complaint: str) -> tuple[int, int]:
    first, dash, last = word.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise UsageError(complaint)
    low, high = int(first), int(last or first)
    if not low <= high <= _HIGHEST:
        raise UsageError(complaint)
    return low, high


def _is_address(word: str) -> bool:
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in word else AF_INET, word.partition("%")[0])
    except OSError:
        return False
    return True

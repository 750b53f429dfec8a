"""Which containers a list or a prune means: Docker's filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from bastide.api.docker.container_view import ports
from bastide.api.times import epoch, moment
from bastide.model.container import NEVER, Container, Status
from bastide.model.errors import InvalidArgument

ACCEPTED = frozenset(
    "ancestor before expose exited health id is-task isolation label name network publish since status volume".split()
)
PRUNE_ACCEPTED = frozenset(("label", "label!", "until"))
_HEALTH = frozenset(("none", "starting", "healthy", "unhealthy"))

Values = Sequence[str]
Test = Callable[[Container, Values], bool]


def has_label(labels: dict[str, str] | None, wanted: str) -> bool:
    """Whether `name` or `name=value` is among the labels."""
    name, equals, value = wanted.partition("=")
    found = (labels or {}).get(name)
    return found is not None and (not equals or found == value)


def matches_text(value: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is `value` or, as a regular expression, is found in it."""
    for pattern in patterns:
        try:
            if pattern == value or re.search(pattern, value):
                return True
        except re.error:
            continue
    return False


def _exited(container: Container, values: Values) -> bool:
    ended = container.state.status is Status.EXITED and container.state.started_at != NEVER
    return ended and str(container.state.exit_code) in {value.strip() for value in values}


def _health(container: Container, values: Values) -> bool:
    return (container.state.health.status if container.state.health else "none") in values


def _name(container: Container, values: Values) -> bool:
    return matches_text(container.name, values) or matches_text(f"/{container.name}", values)


def _network(container: Container, values: Values) -> bool:
    for name, endpoint in container.networks.items():
        if any(value == name or (value and endpoint.network_id.startswith(value)) for value in values):
            return True
    return container.host_config.network_mode in values


def _volume(container: Container, values: Values) -> bool:
    return any(value in (point.name, point.source, point.destination) for point in container.mounts for value in values)


def _port_range(text: str) -> set[tuple[int, str]]:
    """`80`, `80/udp`, `8000-8010/tcp` as ports. Raises InvalidArgument."""
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise InvalidArgument(f"invalid filter: {text!r} is not a port")
    low, high = int(first), int(last or first)
    if not low <= high <= 65535:
        raise InvalidArgument(f"invalid filter: {text!r} is not a range of ports")
    return {(port, protocol or "tcp") for port in range(low, high + 1)}


def _has_port(field: str) -> Test:
    def test(container: Container, values: Values) -> bool:
        wanted = set().union(*(_port_range(value) for value in values))
        return any((port.get(field, 0), port["Type"]) in wanted for port in ports(container))

    return test


_TESTS: dict[str, Test] = {
    "exited": _exited,
    "expose": _has_port("PrivatePort"),
    "health": _health,
    "id": lambda container, values: matches_text(container.id, values),
    "is-task": lambda container, values: not any(value.lower() in ("1", "true") for value in values),
    "isolation": lambda container, values: container.isolation.value in values,
    "label": lambda container, values: all(has_label(container.config.labels, value) for value in values),
    "name": _name,
    "network": _network,
    "publish": _has_port("PublicPort"),
    "status": lambda container, values: container.state.status.value in values,
    "volume": _volume,
}


def check(filters: dict[str, list[str]]) -> None:
    """Raise InvalidArgument for values that can match nothing."""
    for name, known in (("status", frozenset(map(str, Status))), ("health", _HEALTH)):
        for value in filters.get(name, ()):
            if value not in known:
                raise InvalidArgument(f"invalid filter '{name}={value}'")
    for value in filters.get("exited", ()):
        if not value.strip().lstrip("-").isdecimal():
            raise InvalidArgument(f"invalid filter 'exited={value}'")


def select(
    containers: Iterable[Container],
    filters: dict[str, list[str]],
    find: Callable[[str], Container],
    descends: Callable[[Container, Values], bool],
) -> list[Container]:
    """The containers that pass every filter.

    `find` gives the container that `before` or `since` names; `descends` says whether a container comes
    from one of the images that `ancestor` names. Raises InvalidArgument, NotFound.
    """
    check(filters)
    tests = [(_TESTS[name], values) for name, values in filters.items() if name in _TESTS]
    if ancestors := filters.get("ancestor"):
        tests.append((descends, ancestors))
    chosen = [container for container in containers if all(test(container, values) for test, values in tests)]
    for reference in filters.get("before", ()):
        limit = epoch(find(reference).created)
        chosen = [container for container in chosen if epoch(container.created) < limit]
    for reference in filters.get("since", ()):
        limit = epoch(find(reference).created)
        chosen = [container for container in chosen if epoch(container.created) > limit]
    return chosen


def select_for_prune(containers: Iterable[Container], filters: dict[str, list[str]]) -> list[Container]:
    """The containers that a prune with these filters means, running or not. Raises InvalidArgument."""
    until = [moment(value, name="until") for value in filters.get("until", ())]
    return [
        container
        for container in containers
        if labelled(container.config.labels, filters) and all(epoch(container.created) <= end for end in until)
    ]


def labelled(labels: dict[str, str] | None, filters: dict[str, list[str]]) -> bool:
    """Whether labels pass a prune's `label` and `label!` filters."""
    return all(has_label(labels, value) for value in filters.get("label", ())) and not any(
        has_label(labels, value) for value in filters.get("label!", ())
    )

"""The bridge driver's options."""

from __future__ import annotations

import pytest

from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.network import Network
from bastide.network.bridge_options import Options, parse

PREFIX = "com.docker.network.bridge"


def options(**given: str) -> Options:
    return parsed({f"{PREFIX}.{name}": value for name, value in given.items()})


def parsed(given: dict[str, str]) -> Options:
    return parse(Network(name="n", id="0123456789abcdef", created="", driver="bridge", options=given), Settings())


def test_defaults() -> None:
    assert options() == Options(bridge="br-0123456789ab", icc=True, masquerade=True, binding="", mtu=0)


def test_given() -> None:
    found = options(
        name="moat0",
        enable_icc="false",
        enable_ip_masquerade="0",
        host_binding_ipv4="127.0.0.1",
        gateway_mode_ipv4="nat",
    )
    assert found == Options(bridge="moat0", icc=False, masquerade=False, binding="127.0.0.1", mtu=0)
    assert parsed({"com.docker.network.driver.mtu": "9000"}).mtu == 9000


@pytest.mark.parametrize(
    "given",
    [
        {f"{PREFIX}.enable_icc": "perhaps"},
        {f"{PREFIX}.name": 'x" } ; flush ruleset ; #'},
        {f"{PREFIX}.name": "sixteen-letters-"},
        {f"{PREFIX}.name": "../x"},
        {f"{PREFIX}.host_binding_ipv4": "here"},
        {"com.docker.network.driver.mtu": "12"},
        {"com.docker.network.driver.mtu": "-1"},
        {"typo": "1"},
    ],
    ids=str,
)
def test_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        parsed(given)


def test_what_is_not_offered_is_named() -> None:
    with pytest.raises(Unsupported, match="routed"):
        options(gateway_mode_ipv4="routed")

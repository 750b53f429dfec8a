"""What is asked of published ports, and what is shown of them."""

from __future__ import annotations

import pytest

from bastide.engine import ports
from bastide.model.container import Config, HostConfig
from bastide.model.errors import InvalidArgument
from bastide.model.network import PortBinding
from bastide.network import Port


def wanted(
    bindings: dict[str, list[PortBinding] | None], exposed: tuple[str, ...] = (), publish_all: bool = False
) -> list[Port]:
    config = Config(exposed_ports={key: {} for key in exposed})
    return ports.wanted(config, HostConfig(port_bindings=bindings, publish_all_ports=publish_all))


def port(number: int, host_port: int, host_ip: str = "", protocol: str = "tcp", end: int = 0) -> Port:
    return Port(container_port=number, protocol=protocol, host_ip=host_ip, host_port=host_port, host_port_end=end)


def test_bindings() -> None:
    asked = {
        "80/tcp": [PortBinding(host_port="8080"), PortBinding(host_ip="::1", host_port="8081")],
        "53/udp": [PortBinding()],
        "90": [PortBinding(host_port="9000-9002")],
        "91": [PortBinding(host_port="9100-9100")],
        "92": None,
    }
    assert wanted(asked) == [  # type: ignore[arg-type]
        port(80, 8080),
        port(80, 8081, "::1"),
        port(53, 0, protocol="udp"),
        port(90, 9000, end=9002),
        port(91, 9100),
    ]


def test_publish_all_takes_what_has_no_binding() -> None:
    found = wanted({"80/tcp": [PortBinding(host_port="8080")]}, ("80/tcp", "443/tcp", "53/udp"), publish_all=True)
    assert found == [port(80, 8080), port(443, 0), port(53, 0, protocol="udp")]


@pytest.mark.parametrize("key", ["", "0/tcp", "65536", "-1", "a", "80/icmp", "80-90/tcp"])
def test_ports_that_are_none(key: str) -> None:
    with pytest.raises(InvalidArgument):
        wanted({key: [PortBinding()]})


@pytest.mark.parametrize("text", ["x", "70000", "90-80", "1-", "-1", "80 ; drop"])
def test_host_ports_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        wanted({"80/tcp": [PortBinding(host_port=text)]})


def test_shown() -> None:
    config = Config(exposed_ports={"80/tcp": {}, "443": {}})
    shown = ports.shown(config, [port(80, 8080, "0.0.0.0"), port(80, 8080, "::"), port(9, 9)])
    assert shown == {
        "80/tcp": [PortBinding(host_ip="0.0.0.0", host_port="8080"), PortBinding(host_ip="::", host_port="8080")],
        "443/tcp": None,
        "9/tcp": [PortBinding(host_port="9")],
    }

"""What may be asked of an endpoint, and what is refused."""

from __future__ import annotations

import pytest

from bastide.model.errors import InvalidArgument
from bastide.model.network import EndpointIPAM, EndpointSettings
from bastide.network import endpoint_options
from bastide.network.endpoint_options import SYSCTLS


def test_nothing() -> None:
    endpoint_options.check(EndpointSettings())
    assert endpoint_options.sysctls(EndpointSettings(driver_opts={SYSCTLS: ""}), "eth0") == ()


@pytest.mark.parametrize("placeholder", ["IFNAME", "ifname"])
def test_parameters_of_an_interface(placeholder: str) -> None:
    text = f"net.ipv4.conf.{placeholder}.log_martians=1,net.ipv6.conf.{placeholder}.stable_secret=fe80::1"
    assert endpoint_options.sysctls(EndpointSettings(driver_opts={SYSCTLS: text}), "eth7") == (
        ("net.ipv4.conf.eth7.log_martians", "1"),
        ("net.ipv6.conf.eth7.stable_secret", "fe80::1"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "net.ipv4.conf.eth0.log_martians=1",
        "net.ipv4.ip_forward=1",
        "net.core.IFNAME.x=1",
        "kernel.core_pattern=|/bin/sh",
        "net.ipv4.conf.IFNAME.log_martians",
        "net.ipv4.conf.IFNAME.a=1+kernel.core_pattern=x",
        "net.ipv4.conf.IFNAME.a=1\n",
        "net.ipv4.conf/../../../kernel.IFNAME.core_pattern=x",
        "net.ipv4.conf.IFNAME.a=1,",
    ],
)
def test_what_is_no_parameter_of_an_interface(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unrecognised network interface sysctl"):
        endpoint_options.check(EndpointSettings(driver_opts={SYSCTLS: text}))


def test_an_unknown_option() -> None:
    with pytest.raises(InvalidArgument, match="unknown endpoint option 'speed'"):
        endpoint_options.check(EndpointSettings(driver_opts={"speed": "9"}))


def test_link_local_addresses() -> None:
    wanted = EndpointSettings(ipam_config=EndpointIPAM(link_local_ips=["169.254.1.2", "fe80::2"]))
    assert endpoint_options.link_local(wanted) == ("169.254.1.2/16", "fe80::2/64")


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1", "fe80::1%eth0", "169.254.1", ""])
def test_addresses_that_are_not_link_local(text: str) -> None:
    """They would be somebody's."""
    with pytest.raises(InvalidArgument, match="invalid link-local IP address"):
        endpoint_options.check(EndpointSettings(ipam_config=EndpointIPAM(link_local_ips=[text])))

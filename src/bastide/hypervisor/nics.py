"""NICs of a VM that runs: the spare ones of its template connected to a tap, and let go of again."""

from __future__ import annotations

import os
from pathlib import Path

from bastide.host import tap
from bastide.host.syscalls import blocking
from bastide.hypervisor import process, qmp
from bastide.hypervisor.agent import Agent
from bastide.hypervisor.frames import Ask, Field, fields
from bastide.hypervisor.machine import Machine
from bastide.model.errors import BastideError, HostError, ResourceExhausted, Unsupported
from bastide.model.process import Interface

SPARES = 2
"""How many more networks a running VM can be on than when it was started."""


def free(machine: Machine, used: dict[str, int]) -> int:
    """The first spare NIC that is in nobody's use; `used` is by tap. Raises ResourceExhausted, Unsupported."""
    for number in range(machine.nics, machine.nics + machine.spares):
        if number not in used.values():
            return number
    if not machine.spares:
        raise Unsupported("a VM that was started without networks has no interface for one: stop it first")
    raise ResourceExhausted(
        f"a running VM can be on at most {machine.spares} more networks than it was started on: "
        "disconnect another one, or stop it first"
    )


async def plug(control: Path, agent: Agent, number: int, link: Interface) -> None:
    """Connect spare NIC `number` to the tap of `link` and have the guest configure it.

    Raises Unavailable, GuestError, HostError; then nothing is connected.
    """
    try:
        queue = await blocking(tap.attach, link.device)
    except OSError as error:
        raise HostError("open of tap", error.errno or 5, link.device) from error
    try:
        async with qmp.connect(control) as monitor:
            await monitor.plug(number, queue)
    finally:
        os.close(queue)
    try:
        await agent.ask(Ask.NETWORK, fields(process.connected(number, link)))
    except BastideError:
        await unplug(control, agent, number, spare=True)
        raise


async def unplug(control: Path, agent: Agent, number: int, *, spare: bool) -> None:
    """Take NIC `number` from the guest and off its tap; one that is no spare stays without until the next start."""
    try:
        await agent.ask(Ask.NETWORK, fields([(Field.INTERFACE, process.no_interface(number))]))
    finally:
        async with qmp.connect(control) as monitor:
            await monitor.unplug(number, spare=spare)

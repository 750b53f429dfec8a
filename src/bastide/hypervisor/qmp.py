"""QMP, QEMU's control channel: short connections for the few things that are not on the way of a start."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, QMPClient, Runstate
from qemu.qmp.error import QMPError

from bastide.model.errors import GuestError, HostError, NotFound, Unavailable

_TIMEOUT = 30.0
_UNLIMITED = 1 << 40
"""Bytes a second that a state is written with: as fast as the disk takes it."""
_DEVICES_LIMIT = 32 << 20
"""The most bytes that the devices' state may take."""
TAP, PORT = "net", "port"
"""What the ids of a NIC's tap, and of the hub's port before it, begin with; the NIC's number follows."""
IGNORE_SHARED: list[dict[str, object]] = [{"capability": "x-ignore-shared", "state": True}]
"""Leave shared RAM out of the state: it is in the template's file already (migration's qapi schema)."""


class Monitor:
    """A connection to one QEMU."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command; gives what it returns. Raises Unavailable with QEMU's words."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await self._client.execute(command, arguments)
        except (QMPError, TimeoutError, OSError) as error:
            raise Unavailable(f"QEMU refused {command}: {error}") from error

    async def plug(self, number: int, tap: int) -> None:
        """Connect the spare NIC `number` to a tap's descriptor, which QEMU then has too. Raises Unavailable."""
        self._pass(tap, "a tap")
        await self.execute("getfd", {"fdname": "tap"})
        await self.execute("netdev_add", {"type": "tap", "id": f"{TAP}{number}", "fd": "tap"})
        port = {"id": f"{PORT}{number}", "hubid": number, "netdev": f"{TAP}{number}"}
        await self.execute("netdev_add", {"type": "hubport", **port})

    async def unplug(self, number: int, *, spare: bool) -> None:
        """Take a NIC off its tap; one that is no spare stays without for good. Raises Unavailable."""
        for name in (f"{PORT}{number}",) * spare + (f"{TAP}{number}",):
            await self.execute("netdev_del", {"id": name})

    async def link_up(self, taps: int) -> None:
        """Have the first NICs, as many as `taps`, show a carrier: they were saved without after an `unplug`."""
        for number in range(taps):
            await self.execute("set_link", {"name": f"{TAP}{number}", "up": True})

    def _pass(self, descriptor: int, what: str) -> None:
        """Send a descriptor, for the `getfd` that follows."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise Unavailable(f"QEMU does not take {what}: {error}") from error

    async def save(self, file: int) -> None:
        """Write the state of devices into an open file; the memory is a file already. Then the guest stands still."""
        with self._client.listener(("MIGRATION",)) as events:
            capabilities = [*IGNORE_SHARED, {"capability": "events", "state": True}]
            await self.execute("migrate-set-capabilities", {"capabilities": capabilities})
            await self.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED, "downtime-limit": 2000})
            self._pass(file, "the state's file")
            await self.execute("getfd", {"fdname": "state"})
            await self.execute("migrate", {"uri": "fd:state"})
            await self._saved(events)

    async def halt(self) -> None:
        """Have the guest stand still, everything written that it has written."""
        await self.execute("stop")

    async def proceed(self) -> None:
        """Let the guest run again."""
        await self.execute("cont")

    async def devices(self) -> bytes:
        """The devices' state of a guest that stands still, as a stream of QEMU's. Raises Unavailable, GuestError."""
        file = os.memfd_create("devices", os.MFD_CLOEXEC)
        # QEMU's set has to have one that was opened as it would open it: for writing alone.
        end = os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._pass(end, "a file for the devices")
            # A set of its own: a daemon that was killed may have left one.
            added = await self.execute("add-fd")
            try:
                # Made for Xen, and all that a state is whose memory is kept elsewhere (migration's qapi schema).
                place = {"filename": f"/dev/fdset/{added['fdset-id']}", "live": False}
                await self.execute("xen-save-devices-state", place)
            finally:
                await self.execute("remove-fd", {"fdset-id": added["fdset-id"]})
            if os.fstat(file).st_size > _DEVICES_LIMIT:
                raise GuestError("the state of the virtual machine's devices is too large")
            return os.pread(file, _DEVICES_LIMIT, 0)
        finally:
            os.close(end)
            os.close(file)

    async def _saved(self, events: EventListener) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                while True:
                    data: Any = (await self._next(events))["data"]
                    status = data["status"]
                    if status == "completed":
                        return
                    if status in ("failed", "cancelled"):
                        found = await self.execute("query-migrate")
                        why = found.get("error-desc", "no reason given")
                        raise Unavailable(f"QEMU could not save the virtual machine's state: {why}")
        except TimeoutError as error:
            raise Unavailable("QEMU did not save the virtual machine's state in time") from error

    async def _next(self, events: EventListener) -> Any:
        """The next event; a listener itself does not notice that the connection has ended."""
        event = asyncio.ensure_future(events.get())
        ended = asyncio.ensure_future(self._client.runstate_changed())
        try:
            if self._client.runstate is Runstate.RUNNING:
                await asyncio.wait((event, ended), return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                return event.result()
            raise Unavailable("QEMU ended while it saved the virtual machine's state")
        finally:
            event.cancel()
            ended.cancel()
            await asyncio.gather(event, ended, return_exceptions=True)


@contextlib.asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Monitor]:
    """Speak QMP on the socket at `path`. Raises NotFound when QEMU has ended."""
    client = QMPClient("bastide")
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async with asyncio.timeout(_TIMEOUT):
            # By descriptor: a path may be longer than the 108 bytes of an address (unix(7)).
            await client.connect(f"/proc/self/fd/{folder}/{path.name}")
    except (QMPError, OSError) as error:
        raise NotFound("the virtual machine has ended") from error
    except TimeoutError as error:
        raise Unavailable("QEMU does not answer") from error
    finally:
        os.close(folder)
    try:
        yield Monitor(client)
    finally:
        with contextlib.suppress(QMPError, OSError, HostError, EOFError):
            await client.disconnect()

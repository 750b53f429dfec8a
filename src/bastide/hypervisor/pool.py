"""Warm VMs: clones that are restored, seeded and stopped, until a container takes one and it goes on as that.

A member's QEMU is the child of a monitor that keeps it (monitor/vmm_keep.c), on a leash that ends with the daemon:
whatever kills the daemon leaves none. Who takes a member gets it out of the list at once, and its keeper hands over
once: nobody gets one twice. Entropy, time, addresses and name are given when it is taken, as to any clone.

`<run>/qemu/pool/<token>/` is a member's place, `<data>/pool/<token>/` its disks, which are moved to the container's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bastide.host import cgroups, links
from bastide.host.netlink import Netlink
from bastide.host.processes import Handle, Spawner, command_line
from bastide.host.syscalls import blocking
from bastide.hypervisor import disks, inside, machine, process, qmp
from bastide.hypervisor.agent import Agent
from bastide.hypervisor.confinement import Uids, confine
from bastide.hypervisor.frames import Ask
from bastide.hypervisor.machine import Machine
from bastide.hypervisor.plan import Plan
from bastide.hypervisor.template import Template, Templates
from bastide.model import pool as model
from bastide.model.config import Settings
from bastide.model.errors import BastideError, GuestError, NotFound

log = logging.getLogger("bastide.pool")

_WINDOW, _IDLE = 60.0, 900.0
"""Seconds over which starts are counted, and after which a kind that nobody asked for is let go."""
_MOST = 8
"""Members of one kind, however often it is used."""
_QUIET = 0.5
"""Seconds without a start before a member is made: whoever starts a container needs the processors."""
_PATIENCE = 60.0
"""Seconds until a kind whose making failed is tried again."""
_EXPECTED = 64 << 20
"""Bytes that a member is thought to use before one was measured."""
_REHEARSALS = 3
_CAPABILITIES = ("CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")
_ENODEV = 19
_PROCESSORS, _MEMORY, _SHARE = 4, 15 << 30, 32
"""From which size on a machine has a pool where no setting says so, and which share of the memory that may use."""


class Kind(NamedTuple):
    """What members may differ in: the machine, and the image's disk that is mounted (None: none yet)."""

    machine: Machine
    base: Path | None


class Member(NamedTuple):
    """A VM that waits."""

    token: str
    kind: Kind
    directory: Path
    upper: Path
    uid: int
    taps: Sequence[str]
    agent: Agent
    leash: int
    group: str
    used: int


class Demand:
    """When a kind was asked for, and what users call its image."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.asked: deque[float] = deque(maxlen=_MOST)
        self.failed = -_PATIENCE

    def wanted(self, now: float) -> int:
        """How many should wait: as many as were asked for within the window, one while it is remembered."""
        if not self.asked or now - self.asked[-1] > _IDLE:
            return 0
        return max(1, sum(now - moment < _WINDOW for moment in self.asked))


class Pool:
    """The members of one daemon. `limit` bytes may be used; `reason` says why that is 0."""

    def __init__(self, settings: Settings, spawner: Spawner, templates: Templates, uids: Uids) -> None:
        self._settings, self._spawner, self._templates, self._uids = settings, spawner, templates, uids
        self._home = settings.run_root / "qemu" / "pool"
        self._disks = settings.data_root / "pool"
        self.limit, self.reason = allowance(settings)
        self._members: dict[Kind, list[Member]] = {}
        self._demand: dict[Kind, Demand] = {}
        self._typical = _EXPECTED
        self._touched = 0.0
        self._changed = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self._clearing: set[asyncio.Task[None]] = set()

    # -- taking --------------------------------------------------------------------------------

    def touch(self) -> None:
        """A container is being started: nothing is made meanwhile."""
        self._touched = time.monotonic()

    def take(self, wanted: Machine, base: Path, image: str = "") -> Member | None:
        """A member for a container of that image with a new disk: with the image if there is one, else any; None: none.

        It belongs to the caller, who passes it to `hand_over` or `discard`.
        """
        self.touch()
        if not self.limit:
            return None
        for kind in (Kind(wanted, base), Kind(wanted, None)):
            self._ask(kind, image)
            waiting = self._members.get(kind, [])
            while waiting:
                member = waiting.pop(0)
                if not member.agent.broken:
                    return member
                self.discard(member)
        return None

    def _ask(self, kind: Kind, image: str) -> None:
        demand = self._demand.setdefault(kind, Demand(image if kind.base else ""))
        demand.asked.append(time.monotonic())
        self._tend()

    def expect(self, wanted: Machine, base: Path, image: str = "") -> None:
        """Containers of that image will be started."""
        for kind in (Kind(wanted, base), Kind(wanted, None)) if self.limit else ():
            self._ask(kind, image)

    def hand_over(
        self, member: Member, plan: Plan, directory: Path, *, base: Path, upper: Path, taps: Sequence[str]
    ) -> None:
        """Give a member's sockets to the container in `directory`, and write into `plan` how its monitor takes it over.

        Raises OSError. `hand_disk` follows when that was done.
        """
        for name in ("keep.sock", "qmp.sock"):
            (member.directory / name).rename(directory / name)
        self._spawn(blocking(_remove_taps, member.taps))
        plan.adopt(Path("keep.sock"))
        for name in taps:
            plan.attach(name)
        if member.kind.base is None:
            machine.exchange(plan, base, upper)
        plan.tell({"execute": "cont"})

    def hand_disk(self, member: Member, upper: Path) -> None:
        """Put the disk that a member runs with in the container's place. Raises OSError."""
        if member.kind.base is not None:
            member.upper.rename(upper)

    def discard(self, member: Member, *, taken: bool = False) -> None:
        """Let go of a member: what was `taken` over lives on under its new monitor and uid, all else ends."""
        os.close(member.leash)
        if not taken:
            member.agent.close()
        self._spawn(self._clear(member, taken=taken))

    async def _clear(self, member: Member, *, taken: bool) -> None:
        if not taken:
            # Its keeper ends with the leash, and QEMU with the keeper; the uid is free when that is done.
            await _vanished(member.directory / "pid")
        for _ in range(100):
            if cgroups.Group(member.group).remove():
                break
            await asyncio.sleep(0.01)
        if not taken:
            self._uids.free(member.uid)
        await blocking(shutil.rmtree, member.upper.parent, True)
        await blocking(shutil.rmtree, member.directory, True)

    # -- making --------------------------------------------------------------------------------

    def _tend(self) -> None:
        self._changed.set()
        if self._tending is None or self._tending.done():
            self._tending = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Make what is missing and let go of what nobody asks for, one at a time, off everybody's way."""
        while True:
            self._changed.clear()
            self._expire()
            kind = self._missing()
            if kind is None:
                with contextlib.suppress(TimeoutError):
                    # With nothing to let go of later there is nothing to wake up for.
                    async with asyncio.timeout(_PATIENCE if self._demand else None):
                        await self._changed.wait()
                continue
            if (left := self._touched + _QUIET - time.monotonic()) > 0:
                await asyncio.sleep(left)
                continue
            try:
                member = await self._make(kind)
            except (BastideError, OSError) as error:
                log.warning("no warm VM of %s: %s", self._demand[kind].image or "any image", error)
                self._demand[kind].failed = time.monotonic()
            else:
                self._typical = member.used
                self._members.setdefault(kind, []).append(member)

    @property
    def used(self) -> int:
        """Bytes that the members use."""
        return sum(member.used for members in self._members.values() for member in members)

    def _expire(self) -> None:
        now = time.monotonic()
        for kind in [kind for kind, demand in self._demand.items() if not demand.wanted(now)]:
            del self._demand[kind]
            for member in self._members.pop(kind, []):
                self.discard(member)
        for kind, members in self._members.items():
            while len(members) > self._demand[kind].wanted(now):
                self.discard(members.pop())
        while self.used > self.limit and (least := self._least()) is not None:
            self.discard(self._members[least].pop())

    def _rank(self, kind: Kind) -> tuple[bool, float]:
        """How much a kind is worth: those with their image more, then those that were asked for last."""
        return kind.base is not None, self._demand[kind].asked[-1]

    def _least(self) -> Kind | None:
        """The kind with members that is worth least."""
        return min((kind for kind, members in self._members.items() if members), key=self._rank, default=None)

    def _missing(self) -> Kind | None:
        """The kind of the next member, if there is room or room can be had from kinds that are used less."""
        now = time.monotonic()
        for kind in sorted(self._demand, key=self._rank, reverse=True):
            demand = self._demand[kind]
            if len(self._members.get(kind, [])) >= demand.wanted(now) or now - demand.failed < _PATIENCE:
                continue
            needed = self._typical
            while self.used + needed > self.limit and (least := self._least()) is not None:
                if self._rank(least) >= self._rank(kind):
                    break
                self.discard(self._members[least].pop())
            if self.used + needed <= self.limit:
                return kind
        return None

    async def _make(self, kind: Kind) -> Member:
        """Restore a clone, let it run a little, stop it. Raises BastideError, OSError; then nothing is left."""
        template = await self._templates.need(kind.machine, kind.base)
        token = os.urandom(4).hex()
        directory, own = self._home / token, self._disks / token
        group = f"/{self._settings.cgroup_parent.strip('/')}/pool-{token}"
        async with AsyncExitStack() as undo:
            for folder in (directory, own):
                folder.mkdir(parents=True, mode=0o700)
                undo.push_async_callback(blocking, shutil.rmtree, folder, True)
            uid = self._uids.take(f"pool-{token}")
            undo.callback(self._uids.free, uid)
            undo.callback(lambda: cgroups.Group(group).remove())
            taps = [f"p{token}{number}" for number in range(kind.machine.nics)]
            plan = await self._plan(kind, template, own, Plan(uid), taps)
            for path in confine(cgroups.Group(group), kind.machine.memory, {}):
                plan.cgroup(path)
            (directory / "plan").write_text(plan.text())
            leash, held = os.pipe()
            undo.push_async_callback(_vanished, directory / "pid")
            undo.callback(os.close, held)
            try:
                await self._start(directory, leash)
            finally:
                os.close(leash)
            agent = await Agent.connect(directory / "agent.sock")
            undo.callback(agent.close)
            used = await self._rehearse(directory, agent, kind)
            undo.pop_all()
        return Member(token, kind, directory, own / "upper", uid, taps, agent, held, group, used)

    async def _plan(self, kind: Kind, template: Template, own: Path, plan: Plan, taps: Sequence[str]) -> Plan:
        if kind.base is None:
            disks.placeholder(own / "base", disks.BASE_SIZE)
            disks.placeholder(own / "upper", disks.UPPER_SIZE)
        else:
            await blocking(disks.copy_sparse, template.upper, own / "upper")
        plan.preload(self._settings.guest_root / "readonly.so")
        plan.leash()
        plan.keep(Path("keep.sock"))
        plan.vendor(Path("agent.sock"))
        machine.describe(
            plan,
            kind.machine,
            ram=template.ram,
            base=kind.base or own / "base",
            upper=own / "upper",
            taps=list(taps),
            control=Path("qmp.sock"),
            state=template.state,
            exchangeable=kind.base is None,
        )
        return plan

    async def _start(self, directory: Path, leash: int) -> None:
        with (directory / "errors").open("wb") as errors:
            child = await self._spawner.spawn(
                [
                    self._settings.guest_root / "vmm",
                    "create",
                    *("--bundle", directory),
                    *("--pid-file", directory / "pid"),
                    directory.name,
                ],
                stdin=leash,
                stderr=errors.fileno(),
            )
            code = await child.wait()
            child.close()
        if code:
            raise GuestError((directory / "errors").read_text(errors="replace").strip() or "it cannot be started")

    async def _rehearse(self, directory: Path, agent: Agent, kind: Kind) -> int:
        """Do what every start does, so that an emulator has translated it; gives the bytes used."""
        await agent.hello()
        files, network = process.rehearsal(kind.machine.nics)
        for _ in range(_REHEARSALS):
            await agent.ask(Ask.CLOCK, process.clock())
            await agent.ask(Ask.FILES, files)
            await agent.ask(Ask.NETWORK, network)
            await inside.rehearse(agent, _CAPABILITIES)
        async with qmp.connect(directory / "qmp.sock") as control:
            await control.execute("stop")
        pid = int((directory / "pid").read_text())
        return await blocking(lambda: sum(_pss(each) for each in (pid, *_children(pid))))

    # -- the whole -----------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove what a killed daemon has left. Call once, before the first member; blocks."""
        for folder in self._home.iterdir() if self._home.is_dir() else ():
            cgroups.Group(f"/{self._settings.cgroup_parent.strip('/')}/pool-{folder.name}").remove()
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self._disks, ignore_errors=True)

    def resize(self, limit: int) -> None:
        """Let it use `limit` bytes from now on; 0 turns it off."""
        self.limit, self.reason = limit, "" if limit else "it was turned off"
        self._expire()
        self._tend()

    def state(self) -> model.PoolState:
        """What waits, and for what."""
        now = time.monotonic()
        shapes = [
            model.Shape(
                image=demand.image,
                memory=kind.machine.memory,
                cpus=kind.machine.cpus,
                interfaces=kind.machine.nics,
                ready=len(self._members.get(kind, [])),
                wanted=demand.wanted(now) if self.limit else 0,
                used=sum(member.used for member in self._members.get(kind, [])),
            )
            for kind, demand in self._demand.items()
        ]
        reason = self.reason
        if 0 < self.limit < self._typical:
            reason = f"one VM uses {self._typical >> 20} MiB, which is more than it may use"
        return model.PoolState(limit=self.limit, used=self.used, reason=reason, shapes=tuple(shapes))

    async def close(self) -> None:
        """End every member; returns when nothing of them is left."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        for members in self._members.values():
            for member in members:
                self.discard(member)
        self._members.clear()
        await asyncio.gather(*self._clearing, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)


def allowance(settings: Settings) -> tuple[int, str]:
    """How many bytes the pool may use by the settings; where that is 0, why."""
    if settings.pool_memory >= 0:
        return settings.pool_memory, "" if settings.pool_memory else "pool_memory is 0"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processors = os.cpu_count() or 1
    if processors < _PROCESSORS or memory < _MEMORY:
        small = f"{processors} processors and {memory >> 30} GiB of memory"
        return 0, f"this machine is small ({small}; it is on from {_PROCESSORS} and {_MEMORY >> 30} GiB)"
    return memory // _SHARE, ""


def _remove_taps(names: Sequence[str]) -> None:
    """Remove the devices that members were made with. The kernel lets go of their queues at once."""
    with Netlink() as channel:
        for name in names:
            channel.request([links.delete(name)], tolerated=(_ENODEV,))


async def _vanished(pid_file: Path) -> None:
    """Wait until the keeper of a pid file, whose leash was let go, has ended."""
    with contextlib.suppress(OSError, ValueError, NotFound):
        handle = Handle.open(int(pid_file.read_text()))
        if str(pid_file.parent) in command_line(handle.pid):
            await handle.ended()
        handle.close()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pss(pid: int) -> int:
    """Bytes of memory that a process uses, its share of what is shared."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0

"""Virtual machines: QEMU restored from a template, its guest agent, and conmon over both.

For conmon the VM monitor (monitor/vmm.c) is an OCI runtime and then the container's process, so that logs,
attach, terminals and exit codes go the way they go for containers. What else is asked of the guest goes over
the agent's channel. `run_root/qemu/bundles/<id>` is a link to the container's directory, by which
everything is found again after the daemon's restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal as signals
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from bastide.host import cgroups
from bastide.host.paths import write_whole
from bastide.host.processes import Spawner
from bastide.host.syscalls import blocking
from bastide.hypervisor import architecture, disks, inside, machine, nics, process, qmp, saved, shares
from bastide.hypervisor.agent import Agent, Channel
from bastide.hypervisor.confinement import Uids, confine
from bastide.hypervisor.frames import Ask, fields, u32
from bastide.hypervisor.machine import Machine
from bastide.hypervisor.plan import Plan
from bastide.hypervisor.pool import Member, Pool
from bastide.hypervisor.template import Program, Template, Templates
from bastide.model.config import Settings
from bastide.model.container import HostConfig, Isolation
from bastide.model.errors import (
    BastideError,
    Conflict,
    GuestError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)
from bastide.model.pool import ANY_IMAGE, Named, PoolState
from bastide.model.process import Bundle, DiskRoot, Interface, Process, Root, Stats, Struct, TerminalSize
from bastide.runtime import Exit, Feature, Phase, Probe, Runtime, RuntimeState, Stdio, Stream, limits, vm_limits
from bastide.runtime.emulators import Emulators
from bastide.runtime.monitor import Launch, Monitor, Refused, exit_code, memory_ran_out

log = logging.getLogger("bastide.runtime")

_KILL_SECONDS = 10.0
"""How long a guest may take to end its process after SIGKILL before it is cut off."""
_FREEZE_SECONDS = 5.0
_START = "OCI runtime create failed: unable to start container process"


class _Vm(Struct, frozen=True, kw_only=True):
    """What is kept about a running VM in its directory (`vm.json`)."""

    uid: int
    machine: Machine
    upper: str
    cgroup: str
    shares: int = 0
    started: bool = False
    paused: bool = False
    still: bool = False
    """The guest was frozen before it was paused: its files and volumes are as its memory has them."""
    memory: int = 0
    pids: int = 0
    """The limits of all processes together; `pids` 0: there is none."""
    nics: dict[str, int] = {}
    """Numbers of the NICs by their taps."""


class Qemu(Runtime, name="qemu", isolation=Isolation.VM):
    """The Runtime contract over QEMU."""

    snapshotter: ClassVar[str] = "erofs"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {
            Feature.PAUSE,
            Feature.STATS,
            Feature.UPDATE,
            Feature.HOTPLUG_NETWORK,
            Feature.TOP,
            Feature.FILES,
            Feature.BIND_MOUNTS,
            Feature.PRIVILEGED,
            Feature.SYSCTLS,
            Feature.INIT,
            Feature.SNAPSHOT,
            Feature.CLONE,
            Feature.PREWARM,
            Feature.POOL,
            Feature.OTHER_ARCHITECTURES,
        }
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._home = settings.run_root / "qemu"
        self._bundles = self._home / "bundles"
        self._spawner = Spawner()
        self._monitor = Monitor(settings.guest_root / "vmm", (), self._spawner)
        self._templates = Templates(settings, self._spawner)
        self._uids = Uids(self._home / "uids", settings.vm_uid_base)
        self._pool = Pool(settings, self._spawner, self._templates, self._uids)
        self._moves = cgroups.Moves()
        self._agents: dict[str, Agent] = {}
        self._execs: dict[tuple[str, str], Channel] = {}
        self._emulators = Emulators(settings)
        self._swept: asyncio.Task[None] | None = None
        self._cutting: set[asyncio.Task[None]] = set()
        self._known: set[str] = set()
        self._used: set[tuple[Machine, Path]] = set()
        self._warming: dict[tuple[Machine, Path], asyncio.Task[None]] = {}
        self._seen: dict[Path, saved.Seen] = {}
        """Saved states that this daemon has written, as they were then."""

    def expect(self) -> None:
        """See the contract: QEMU will enter the container's cgroup, and no warm VM is made meanwhile."""
        self._moves.expect()
        self._pool.touch()

    # -- what is here --------------------------------------------------------------------------

    async def probe(self) -> Probe:
        """Whether machines of this host's own architecture work."""
        return await self._emulators.probe(architecture.NATIVE)

    async def emulate(self, wanted: str) -> None:
        """See Emulating."""
        await self._emulators.need(architecture.find(wanted))

    async def _machine(self, host: HostConfig, nic_count: int, image: str) -> Machine:
        """The machine that a container of an image for the architecture `image` needs. Raises Unsupported."""
        model = architecture.find(image)
        qemu, version, chosen = await self._emulators.need(model)
        memory = vm_limits.machine_memory(host, self.settings.vm_memory, model.memory)
        cpus = vm_limits.processors(host) or self.settings.vm_cpus
        model.check(memory, cpus)
        return Machine(
            qemu=qemu,
            version=version,
            accelerator=chosen,
            architecture=model.name,
            memory=memory,
            cpus=cpus,
            nics=nic_count,
            spares=nic_count and nics.SPARES,
        )

    def check(self, host: HostConfig) -> None:
        """See the contract."""
        vm_limits.check(host)

    # -- finding a container again -------------------------------------------------------------

    def _directory(self, container: str) -> Path:
        """A container's directory. Raises NotFound."""
        try:
            return (self._bundles / container).readlink()
        except OSError as error:
            raise NotFound(f"container {container} is not running") from error

    def _vm(self, container: str) -> _Vm:
        try:
            data = (self._directory(container) / "vm.json").read_bytes()
            return msgspec.json.decode(data, type=_Vm)
        except (OSError, msgspec.DecodeError) as error:
            raise NotFound(f"container {container} is not running") from error

    def _keep(self, container: str, vm: _Vm) -> None:
        write_whole(self._directory(container) / "vm.json", msgspec.json.encode(vm))

    async def _agent(self, container: str) -> Agent:
        """The guest agent's client; taken up again after the daemon's restart. Raises NotFound, GuestError."""
        agent = self._agents.get(container)
        if agent is None or agent.broken:
            agent = await Agent.connect(self._directory(container) / "agent.sock", again=True)
            self._agents[container] = agent
            await agent.hello()
        return agent

    # -- the ten verbs -------------------------------------------------------------------------

    async def create(self, bundle: Bundle) -> None:
        """See the contract."""
        root = _disks(bundle)
        await blocking(shares.check, bundle.mounts)
        wanted = await self._machine(bundle.host_config, len(bundle.networking.interfaces), bundle.architecture)
        specification = process.specification(
            bundle.process, init=bool(bundle.host_config.init), oom_score=bundle.host_config.oom_score_adj
        )
        await self._sweep()
        fresh = disks.take_fresh(root.upper)
        member = self._pool.take(wanted, root.base, bundle.image) if fresh else None
        if member is not None and await self._adopt(bundle, member):
            mounted = member.kind.base is not None
            await self._begin(bundle, member.agent, specification, wanted.memory, mounted=mounted)
            return
        template = await self._choose(wanted, root, bundle.process, fresh=fresh)
        await self._claim(bundle)
        try:
            await self._launch(bundle, wanted, ram=template.ram, state=template.state)
            agent = await Agent.connect(bundle.directory / "agent.sock")
        except BaseException as error:
            await self._undo(bundle, error)
            raise
        await self._begin(bundle, agent, specification, wanted.memory, mounted=bool(template.image))

    async def _adopt(self, bundle: Bundle, member: Member) -> bool:
        """Make a VM that waits this container's; False when it cannot be had and nothing has happened."""
        root, wanted = _disks(bundle), member.kind.machine
        taken = False
        try:
            await self._claim(bundle)
            self._uids.pass_on(member.uid, bundle.id)
            plan = self._plan(bundle, member.uid, wanted)
            taps = [link.device for link in bundle.networking.interfaces]
            self._pool.hand_over(member, plan, bundle.directory, base=root.base, upper=root.upper, taps=taps)
            await self._watch(bundle, plan)
            # From here on the container's disk is the one that the member runs with.
            self._pool.hand_disk(member, root.upper)
            taken = True
        except (GuestError, OSError) as error:
            log.warning("a warm VM cannot be used, another one is restored: %s", error)
        finally:
            if not taken:
                # The uid is given back by the pool, once nothing runs under it.
                (bundle.directory / "vm.json").unlink(missing_ok=True)
                await self.delete(bundle.id)
            self._pool.discard(member, taken=taken)
        return taken

    async def _begin(self, bundle: Bundle, agent: Agent, specification: bytes, memory: int, *, mounted: bool) -> None:
        """Make the VM this container; nothing is left of it on an error."""
        try:
            await self._become(bundle, agent, specification, memory, mounted=mounted)
        except BaseException as error:
            await self._undo(bundle, error)
            raise

    async def _claim(self, bundle: Bundle) -> None:
        """Make the container's directory, and the link that finds it again; what a crash left is removed."""
        await self.delete(bundle.id)
        for folder in (self._bundles, bundle.directory):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._bundles / bundle.id).symlink_to(bundle.directory)

    async def _undo(self, bundle: Bundle, error: BaseException) -> None:
        """Leave nothing of a VM that did not come up. Raises the monitor's reason in place of `its end`."""
        why = ""
        if isinstance(error, Unavailable | NotFound):
            with contextlib.suppress(TimeoutError, NotFound):
                async with asyncio.timeout(2):
                    await self._monitor.wait(bundle.id, bundle.directory)
            with contextlib.suppress(OSError):
                why = (bundle.directory / "fault").read_text().strip()
        await self.delete(bundle.id)
        if why:
            raise GuestError(f"the virtual machine ended before its process: {why}") from error

    async def _sweep(self) -> None:
        """Once in a daemon's life: remove what a killed one has left of templates and of the pool."""
        if self._swept is None:
            # A uid that was taken just before a crash belongs to no container.
            self._uids.keep(lambda owner: (self._bundles / owner).is_symlink())
            self._swept = asyncio.create_task(self._sweep_all())
        await asyncio.shield(self._swept)

    async def _sweep_all(self) -> None:
        await blocking(self._pool.sweep)
        await self._templates.sweep()

    async def _choose(self, wanted: Machine, root: DiskRoot, first: Process, *, fresh: bool) -> Template:
        """The template with the image mounted where it exists and the writable disk is new, else the plain one.

        An image that is used a second time gets its own template, made meanwhile.
        """
        if not fresh:
            return await self._templates.need(wanted)
        own = await self._templates.get(wanted, root.base)
        if own is not None:
            await blocking(disks.copy_sparse, own.upper, root.upper)
            return own
        key = (wanted, root.base)
        if key in self._used and key not in self._warming:
            task = asyncio.create_task(self._warm(wanted, root.base, first))
            self._warming[key] = task
        self._used.add(key)
        return await self._templates.need(wanted)

    @property
    def warming(self) -> list[asyncio.Task[None]]:
        """The images' templates that are being made."""
        return list(self._warming.values())

    async def _warm(self, wanted: Machine, base: Path, first: Process) -> None:
        """Make an image's own template; when that fails, starts go on without it."""
        try:
            await self._templates.need(wanted, base, _program(first))
        except BastideError as error:
            log.warning("no template for %s: %s", base.name, error.message)
        else:
            self._warming.pop((wanted, base), None)

    async def _launch(self, bundle: Bundle, wanted: Machine, *, ram: Path, state: Path, resync: bool = False) -> None:
        """Have conmon and the monitor restore a VM, which may come up later; `resync`: its streams were in use."""
        root = bundle.root
        assert isinstance(root, DiskRoot)
        uid = self._uids.take(bundle.id)
        plan = self._plan(bundle, uid, wanted)
        plan.preload(self.settings.guest_root / "readonly.so")
        if resync:
            plan.resync()
        taps = [link.device for link in bundle.networking.interfaces]
        machine.describe(
            plan,
            wanted,
            ram=ram,
            base=root.base,
            upper=root.upper,
            taps=taps + [""] * (wanted.nics - len(taps)),
            control=Path("qmp.sock"),
            state=state,
        )
        await self._watch(bundle, plan)

    def _plan(self, bundle: Bundle, uid: int, wanted: Machine) -> Plan:
        """Begin the plan of a VM: who it is on the host and what it shares; write down what is to be known of it."""
        assert isinstance(bundle.root, DiskRoot)
        vm = _Vm(
            uid=uid,
            machine=wanted,
            upper=str(bundle.root.upper),
            cgroup=bundle.cgroup_path,
            shares=len(list(shares.binds(bundle.mounts))),
            nics={link.device: number for number, link in enumerate(bundle.networking.interfaces)},
        )
        self._keep(bundle.id, _limited(vm, bundle.host_config))
        self._known.add(bundle.id)
        plan = Plan(uid)
        if bundle.cgroup_path:
            resources = limits.limits(bundle.host_config)
            for path in confine(cgroups.Group(bundle.cgroup_path), wanted.memory, resources):
                plan.cgroup(path)
        plan.vendor(Path("agent.sock"))
        shares.plan(plan, bundle.mounts)
        return plan

    async def _watch(self, bundle: Bundle, plan: Plan) -> None:
        """Have conmon and the monitor do what the plan says. Raises GuestError with their words."""
        (bundle.directory / "plan").write_text(plan.text())
        launch = Launch(
            id=bundle.id,
            directory=bundle.directory,
            log_path=bundle.log_path,
            terminal=bundle.process.terminal,
            stdin=bundle.process.stdin,
            keep_stdin=bundle.process.terminal or not bundle.stdin_once,
            journal=bundle.journal,
        )
        try:
            await self._monitor.create(launch)
        except Refused as error:
            raise GuestError(f"the virtual machine cannot be started: {error}") from error

    async def _become(self, bundle: Bundle, agent: Agent, specification: bytes, memory: int, *, mounted: bool) -> None:
        """Make the clone this container: identity, root, network, the process that waits to be started."""
        self._agents[bundle.id] = agent
        # All at once: the guest finds the requests waiting when it wakes up.
        configured = agent.request(Ask.CONFIGURE, process.identity(bundle, memory=memory, mounted=mounted))
        prepared = agent.request(Ask.PREPARE, specification)
        await agent.hello()
        await agent.answer(configured)
        try:
            await agent.answer(prepared)
        except (NotFound, PermissionDenied, InvalidArgument) as error:
            raise type(error)(f"{_START}: {error.message}: unknown") from error

    async def start(self, container: str) -> int:
        """See the contract. The pid is the VM monitor's, whose only child is QEMU."""
        directory = self._directory(container)
        agent = await self._agent(container)
        await agent.ask(Ask.START)
        self._keep(container, msgspec.structs.replace(self._vm(container), started=True))
        return int((directory / "pid").read_text())

    async def exec(self, container: str, exec_id: str, process_: Process) -> Stdio:
        """See the contract."""
        agent = await self._agent(container)
        try:
            channel = await agent.run(process.specification(process_))
        except (NotFound, PermissionDenied) as error:
            text = f"OCI runtime exec failed: exec failed: unable to start container process: {error.message}: unknown"
            raise type(error)(text) from error
        self._execs[container, exec_id] = channel
        return _Streams(channel)

    def _exec(self, container: str, exec_id: str) -> Channel:
        try:
            return self._execs[container, exec_id]
        except KeyError as error:
            raise NotFound(f"No such exec instance: {exec_id}") from error

    async def attach(self, container: str) -> Stdio:
        """See the contract."""
        return await self._monitor.attach(self._directory(container))

    async def kill(self, container: str, signal: int, exec_id: str | None = None) -> None:
        """See the contract. SIGKILL reaches the process in the guest, which then flushes its disk and ends."""
        if exec_id is not None:
            channel = self._exec(container, exec_id)
            if channel.ended.done():
                raise NotFound("the process has ended")
            (await self._agent(container)).send(Ask.SIGNAL, channel.stream, u32(signal))
            return
        if signal != signals.SIGKILL:
            (await self._agent(container)).send(Ask.SIGNAL, 0, u32(signal))
            return
        task = asyncio.create_task(self._cut(container))
        self._cutting.add(task)
        task.add_done_callback(self._cutting.discard)
        if self._vm(container).paused:
            await self.resume(container)
        with contextlib.suppress(GuestError, NotFound, Unavailable):
            (await self._agent(container)).send(Ask.SIGNAL, 0, u32(signal))

    async def _cut(self, container: str) -> None:
        """End a VM whose guest does not."""
        with contextlib.suppress(NotFound):
            handle = self._monitor.process(container, self._directory(container))
            if handle is None:
                return
            try:
                async with asyncio.timeout(_KILL_SECONDS):
                    await handle.ended()
            except TimeoutError:
                handle.send(signals.SIGKILL)
            finally:
                handle.close()

    async def wait(self, container: str, exec_id: str | None = None) -> Exit:
        """See the contract."""
        if exec_id is not None:
            try:
                code, oom = await asyncio.shield(self._exec(container, exec_id).ended)
            except (GuestError, NotFound, BastideError):
                return Exit(code=128 + signals.SIGKILL)
            return Exit(code=code, oom_killed=oom)
        directory = self._directory(container)
        code = await self._monitor.wait(container, directory)
        return Exit(code=code, oom_killed=(directory / "oom").exists())

    async def memory_ran_out(self, container: str) -> bool:
        """See the contract: in the guest."""
        return await memory_ran_out(self._directory(container))

    async def reopen_log(self, container: str) -> None:
        """See the contract."""
        self._monitor.reopen_log(self._directory(container))

    async def resize(self, container: str, size: TerminalSize, exec_id: str | None = None) -> None:
        """See the contract."""
        if exec_id is None:
            self._monitor.resize(self._directory(container), size)
            return
        channel = self._exec(container, exec_id)
        body = process.terminal_size(size)
        (await self._agent(container)).send(Ask.RESIZE, channel.stream, body)

    async def state(self, container: str) -> RuntimeState:
        """See the contract."""
        try:
            directory, vm = self._directory(container), self._vm(container)
        except NotFound:
            return RuntimeState(phase=Phase.ABSENT)
        handle = self._monitor.process(container, directory)
        if handle is None:
            code = exit_code(container, directory)
            return RuntimeState(phase=Phase.STOPPED, exit_code=code, oom_killed=(directory / "oom").exists())
        handle.close()
        if not vm.paused:
            await self._take_up(container)
        phase = Phase.PAUSED if vm.paused else Phase.RUNNING if vm.started else Phase.CREATED
        return RuntimeState(phase=phase, pid=handle.pid)

    async def _take_up(self, container: str) -> None:
        """Once for each VM that a former daemon left: it runs, whatever that one was doing to it."""
        if container not in self._known:
            self._known.add(container)
            with contextlib.suppress(NotFound, Unavailable):
                async with qmp.connect(self._directory(container) / "qmp.sock") as control:
                    await control.proceed()

    async def delete(self, container: str) -> None:
        """See the contract."""
        self._known.discard(container)
        try:
            directory = self._directory(container)
        except NotFound:
            return
        for key in [key for key in self._execs if key[0] == container]:
            self._execs.pop(key).detach()
        agent = self._agents.pop(container, None)
        if agent is not None:
            agent.close()
        handle = self._monitor.process(container, directory)
        if handle is not None:
            with contextlib.suppress(NotFound):
                handle.send(signals.SIGKILL)
            await handle.ended()
            handle.close()
        await self._monitor.forget(container, directory)
        with contextlib.suppress(NotFound):
            vm = self._vm(container)
            await _vacate(vm.cgroup)
            self._uids.free(vm.uid)
        await blocking(shutil.rmtree, directory, ignore_errors=True)
        (self._bundles / container).unlink(missing_ok=True)

    # -- features ------------------------------------------------------------------------------

    async def prewarm(self, root: Root | None = None, first: Process | None = None, image: Named = ANY_IMAGE) -> None:
        """See Prewarming: the plain template, with and without a network; then the image's own."""
        await self._sweep()
        plain = [await self._machine(HostConfig(), count, image.architecture) for count in (1, 0)]
        for wanted in plain:
            await self._templates.need(wanted)
        if isinstance(root, DiskRoot) and first is not None:
            await self._templates.need(plain[0], root.base, _program(first))
            self._pool.expect(plain[0], root.base, image.name)

    def pool(self) -> PoolState:
        """See Pooling."""
        return self._pool.state()

    def resize_pool(self, limit: int) -> None:
        """See Pooling."""
        self._pool.resize(limit)

    async def close(self) -> None:
        """End what waits for containers; those that run go on."""
        await self._pool.close()

    async def pause(self, container: str) -> None:
        """See Pausing."""
        vm = self._vm(container)
        if vm.paused:
            raise Conflict(f"Container {container} is already paused")
        # What the guest holds in its caches goes to the disk, for whoever copies that meanwhile.
        still = False
        with contextlib.suppress(GuestError, NotFound):
            await (await self._agent(container)).ask(Ask.FREEZE, timeout=_FREEZE_SECONDS)
            still = True
        async with qmp.connect(self._directory(container) / "qmp.sock") as control:
            await control.execute("stop")
        self._keep(container, msgspec.structs.replace(vm, paused=True, still=still))

    async def resume(self, container: str) -> None:
        """See Pausing. The guest's clock is set anew: it stood still."""
        vm = self._vm(container)
        async with qmp.connect(self._directory(container) / "qmp.sock") as control:
            await control.execute("cont")
        self._keep(container, msgspec.structs.replace(vm, paused=False))
        agent = await self._agent(container)
        # Nobody waits for the answers: they need not be kept.
        agent.send(Ask.CLOCK, 0, process.clock())
        agent.send(Ask.THAW, 0)

    async def save(self, container: str, directory: Path, *, lasting: bool = True) -> None:
        """See Snapshotting: memory, devices and the disk as they are at one moment."""
        vm = self._vm(container)
        agent = None if vm.paused else await self._agent(container)
        if vm.shares and vm.paused and not vm.still:
            raise Conflict(f"container {container} was paused without its guest's help: unpause it first")
        try:
            if vm.shares and agent is not None:
                await agent.ask(Ask.FREEZE, timeout=_FREEZE_SECONDS)
            seen = await saved.write(
                self._directory(container),
                vm.uid,
                Path(vm.upper),
                vm.machine,
                directory,
                paused=vm.paused,
                trees=vm.shares,
                lasting=lasting,
            )
            self._seen = {known: files for known, files in self._seen.items() if known.exists()} | {directory: seen}
        finally:
            if agent is not None:
                agent.send(Ask.CLOCK, 0, process.clock())
                agent.send(Ask.THAW, 0)

    async def check_saved(self, directory: Path) -> None:
        """See Snapshotting."""
        model = architecture.find(saved.described(directory).machine.architecture)
        _, version, _ = await self._emulators.need(model)
        await saved.read(directory, version)

    async def restore(self, bundle: Bundle, directory: Path) -> None:
        """See Snapshotting: the VM goes on where it was saved, with this bundle's name, addresses and entropy."""
        root = _disks(bundle)
        _, version, _ = await self._emulators.need(architecture.find(bundle.architecture))
        await blocking(shares.check, bundle.mounts)
        kept = await saved.read(directory, version, self._seen.get(directory))
        wanted, trees = kept.machine, len(list(shares.binds(bundle.mounts)))
        if trees != kept.shares:
            raise Conflict(f"the saved memory knows {kept.shares} volumes, the container has {trees}")
        former = wanted.nics + wanted.spares
        if len(bundle.networking.interfaces) > former:
            raise Conflict(f"the saved memory has {former} network interfaces: connect no more networks")
        await blocking(disks.copy_sparse, directory / "upper", root.upper)
        await self._claim(bundle)
        if trees:
            await blocking(shutil.copyfile, directory / shares.SAVED, bundle.directory / shares.SAVED)
        try:
            await self._launch(bundle, wanted, ram=directory / "ram", state=directory / "state", resync=True)
            agent = await Agent.connect(bundle.directory / "agent.sock", again=True)
            self._agents[bundle.id] = agent
            await agent.hello()
            async with qmp.connect(bundle.directory / "qmp.sock") as control:
                await control.link_up(len(bundle.networking.interfaces))
            identity = process.identity(bundle, memory=wanted.memory, mounted=True, former_nics=former)
            await agent.ask(Ask.CONFIGURE, identity)
            # Where it was saved while it was paused, its files stand still.
            agent.send(Ask.THAW, 0)
            self._keep(bundle.id, msgspec.structs.replace(self._vm(bundle.id), started=True))
        except BaseException as error:
            await self._undo(bundle, error)
            raise

    def _awake(self, container: str) -> _Vm:
        """A VM whose guest can answer. Raises Conflict, NotFound."""
        vm = self._vm(container)
        if vm.paused:
            raise Conflict(f"container {container} is paused: unpause it first")
        return vm

    async def plug(self, container: str, interface: Interface) -> None:
        """See Hotplugging."""
        vm = self._awake(container)
        number = nics.free(vm.machine, vm.nics)
        agent = await self._agent(container)
        await nics.plug(self._directory(container) / "qmp.sock", agent, number, interface)
        self._keep(container, msgspec.structs.replace(vm, nics={**vm.nics, interface.device: number}))

    async def unplug(self, container: str, interface: Interface) -> None:
        """See Hotplugging."""
        vm = self._awake(container)
        left = dict(vm.nics)
        number = left.pop(interface.device, None)
        if number is None:
            return
        agent, control = await self._agent(container), self._directory(container) / "qmp.sock"
        await nics.unplug(control, agent, number, spare=number >= vm.machine.nics)
        self._keep(container, msgspec.structs.replace(vm, nics=left))

    async def rewrite(self, container: str, hosts: Path, resolv_conf: Path) -> None:
        """See Hotplugging."""
        await (await self._agent(container)).ask(Ask.FILES, fields(process.files(hosts, resolv_conf)))

    async def stats(self, container: str) -> Stats:
        """See Measuring: the guest's own counters."""
        vm = self._vm(container)
        found = await inside.stats(await self._agent(container), vm.memory)
        return msgspec.structs.replace(found, pids_limit=vm.pids)

    async def update(self, container: str, resources: HostConfig) -> None:
        """See Updating: QEMU's limits on the host, those of all processes in the guest."""
        vm = self._awake(container)
        vm_limits.check(resources)
        vm_limits.check_growth(resources, vm.machine)
        if vm.cgroup:
            monitor = int((self._directory(container) / "pid").read_text())
            for path in confine(cgroups.Group(vm.cgroup), vm.machine.memory, limits.limits(resources)):
                path.write_text(Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()[0])
        inner = process.limit_fields(process.limits(resources, vm.machine.memory))
        await (await self._agent(container)).ask(Ask.CONFIGURE, fields(inner))
        self._keep(container, _limited(vm, resources))

    async def processes(self, container: str) -> Sequence[int]:
        """See Listing."""
        return await inside.pids(await self._agent(container))

    async def top(self, container: str, arguments: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """See Listing."""
        return await inside.top(await self._agent(container), arguments)

    @contextlib.asynccontextmanager
    async def at_rest(self, bundle: Bundle) -> AsyncIterator[None]:
        """See Files: a clone without a network and a process has the container's disks and volumes meanwhile."""
        root = _disks(bundle)
        await blocking(shares.check, bundle.mounts)
        wanted = await self._machine(HostConfig(), 0, bundle.architecture)
        await self._sweep()
        disks.take_fresh(root.upper)
        template = await self._templates.need(wanted)
        await self._claim(bundle)
        try:
            await self._launch(bundle, wanted, ram=template.ram, state=template.state)
            agent = self._agents[bundle.id] = await Agent.connect(bundle.directory / "agent.sock")
            configured = agent.request(Ask.CONFIGURE, process.identity(bundle, memory=wanted.memory))
            await agent.hello()
            await agent.answer(configured)
        except BaseException as error:
            await self._undo(bundle, error)
            raise
        try:
            try:
                yield
            finally:
                # A part of an archive stays, as it does in a container.
                await agent.ask(Ask.SHUTDOWN)
        finally:
            await self.delete(bundle.id)

    async def stat_path(self, container: str, path: str) -> dict[str, Any]:
        """See Files."""
        return await inside.stat_path(await self._agent(container), path)

    async def get_archive(self, container: str, path: str, *, own: bool = False) -> AsyncIterator[bytes]:
        """See Files. The root is given without what is mounted in it."""
        agent = await self._agent(container)
        whole = not path.strip("/")
        async for piece in inside.pack(agent, path, whole=whole, own=own and not whole):
            yield piece

    async def put_archive(
        self, container: str, path: str, data: AsyncIterator[bytes], *, no_overwrite_dir: bool = False, owner: str = ""
    ) -> None:
        """See Files."""
        await inside.unpack(await self._agent(container), path, data, keep=no_overwrite_dir, owner=owner)

    async def changes(self, container: str) -> list[tuple[int, str]]:
        """See Files."""
        return await inside.changes(await self._agent(container))


def _disks(bundle: Bundle) -> DiskRoot:
    """The bundle's root. Raises Unsupported when it is none of disks."""
    if not isinstance(bundle.root, DiskRoot):
        raise Unsupported("a VM needs its root as disks: use the snapshotter erofs")
    return bundle.root


def _program(first: Process) -> Program:
    path = next((entry[5:] for entry in first.env if entry.startswith("PATH=")), Program().path)
    name = first.args[0] if first.args else ""
    # What is refused when it is started must not spoil the template.
    return Program(name=name, path=path) if name and "\0" not in name + path else Program(path=path)


def _limited(vm: _Vm, host: HostConfig) -> _Vm:
    """The record with the limits of `host`."""
    memory = min(host.memory or vm.machine.memory, vm.machine.memory)
    return msgspec.structs.replace(vm, memory=memory, pids=max(host.pids_limit or 0, 0))


async def _vacate(path: str) -> None:
    """Remove an empty cgroup; the kernel lets go of it a moment after its last process has ended."""
    if not path:
        return
    group = cgroups.Group(path)
    for _ in range(100):
        if group.remove():
            return
        await asyncio.sleep(0.01)


class _Streams(Stdio):
    """An exec's streams in the guest."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """See Stdio."""
        async for which, data in self._channel.output():
            yield Stream(which), data

    async def write(self, data: bytes) -> None:
        """See Stdio."""
        await self._channel.write(data)

    async def close_stdin(self) -> None:
        """See Stdio."""
        self._channel.close_stdin()

    async def close(self) -> None:
        """See Stdio."""
        self._channel.detach()

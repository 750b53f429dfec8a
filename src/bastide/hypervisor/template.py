"""Templates: VMs booted once, frozen with their memory in a file, and restored as clones ever after.

`<data>/templates/<key>/` holds `ram` (mapped privately by every clone; nobody but root may write it),
`state` (the devices), `base` and `upper` (placeholders that the guest booted with) and `manifest`, which
names digests. A key is the digest of everything that a clone must find unchanged. A folder appears by one
rename; what a crash leaves begins with a dot and is removed by the next daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import select
import shutil
import signal
import time
from pathlib import Path

import msgspec

from bastide.host.processes import Spawner, command_line
from bastide.host.syscalls import blocking, run
from bastide.hypervisor import architecture, disks, inside, machine, process, qmp
from bastide.hypervisor.accelerator import Accelerator
from bastide.hypervisor.agent import Agent
from bastide.hypervisor.frames import Ask
from bastide.hypervisor.machine import Boot, Machine
from bastide.hypervisor.plan import Plan
from bastide.model.config import Settings
from bastide.model.errors import BastideError, GuestError, NotFound, Unavailable
from bastide.model.process import Struct

log = logging.getLogger("bastide.templates")

_BOOT_TIMEOUT = 120.0
_FRESH = 60.0
"""Seconds after which who asked for a template has opened it."""
_SETTLE, _SETTLE_IMAGE = 0.3, 3.0
"""Seconds until the guest's delayed work is done; somebody may wait for a plain template."""
_WAKES, _PAUSE = 100, 0.05
"""Questions in a row, so that the guest is awake for several ticks of its clock; seconds of rest after them."""
_PIECE = 4 << 20


class Template(Struct, frozen=True, kw_only=True):
    """A template that is there, checked."""

    key: str
    directory: Path
    image: str = ""
    """The image (by its disk's name) that is mounted in it, over `upper`; empty: none."""

    @property
    def ram(self) -> Path:
        """The guest's memory."""
        return self.directory / "ram"

    @property
    def state(self) -> Path:
        """The devices' state."""
        return self.directory / "state"

    @property
    def upper(self) -> Path:
        """The writable disk that every clone begins with, where an image is mounted."""
        return self.directory / "upper"

    @property
    def files(self) -> tuple[Path, ...]:
        """What is checked by digest."""
        return (self.ram, self.state, self.upper)


class Program(Struct, frozen=True, kw_only=True):
    """What a container runs: the program's name, and where it is looked for (the variable PATH)."""

    name: str = "sh"
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Manifest(msgspec.Struct, frozen=True):
    """What a template was made of and what it must look like."""

    machine: Machine
    parts: dict[str, str]
    digests: dict[str, str]
    image: str = ""


def digest(path: Path) -> str:
    """The sha256 of a sparse file: of each stretch of data with its place, and of the length."""
    summary = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        at = 0
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            summary.update(f"{start}+{at - start}\n".encode())
            while start < at:
                piece = os.pread(file.fileno(), min(_PIECE, at - start), start)
                if not piece:
                    break
                summary.update(piece)
                start += len(piece)
        summary.update(f"{end}\n".encode())
    return summary.hexdigest()


def processor_model() -> str:
    """The host's processor, as it calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def _program_identity(path: Path) -> str:
    """What changes when a program is replaced, by one of the same version, too."""
    try:
        info = path.stat()
    except OSError:
        return ""
    return f"{info.st_size} {info.st_mtime_ns}"


class Templates:
    """The store of templates. One object in a daemon."""

    def __init__(self, settings: Settings, spawner: Spawner) -> None:
        self._settings, self._spawner = settings, spawner
        self._root = settings.data_root / "templates"
        self._checked: dict[Path, tuple[int, int, int]] = {}
        self._building: dict[str, asyncio.Task[Template]] = {}
        self._parts: dict[str, dict[str, str]] = {}
        self._ready: dict[str, Template] = {}

    @property
    def guest(self) -> Path:
        """Where the kernel, the initramfs and the monitor are installed."""
        return self._settings.guest_root

    def _guest(self, wanted: Machine) -> Path:
        """Where the kernel and the initramfs of a machine are."""
        return architecture.ARCHITECTURES[wanted.architecture].guest(self.guest)

    async def get(self, wanted: Machine, base: Path | None = None) -> Template | None:
        """The template for a machine, with the image of the disk `base` mounted if one is named; None: there is none.

        Raises HostError. A template whose files are not as they were made is removed.
        """
        key = await self._key(wanted, base)
        if key in self._ready and self._unchanged(self._ready[key]):
            with contextlib.suppress(OSError):
                os.utime(self._ready[key].directory)
            return self._ready[key]
        return await self._load(key, base)

    async def need(self, wanted: Machine, base: Path | None = None, program: Program | None = None) -> Template:
        """As `get`, but makes it when it does not exist; any number of callers wait for one making.

        `program` is what clones will probably run: the image's template has it in memory.
        Raises GuestError (the guest does not boot), Unsupported, HostError, ResourceExhausted.
        """
        if found := await self.get(wanted, base):
            return found
        key = await self._key(wanted, base)
        task = self._building.get(key)
        if task is None:
            task = asyncio.create_task(self._build(key, wanted, base, program))
            self._building[key] = task
            task.add_done_callback(lambda _: self._building.pop(key, None))
        # A caller that gives up does not take the making from the others.
        return await asyncio.shield(task)

    async def _key(self, wanted: Machine, base: Path | None) -> str:
        parts = self._parts.get(wanted.architecture)
        if parts is None:
            parts = self._parts[wanted.architecture] = await blocking(self._read_parts, wanted)
        text = msgspec.json.encode([wanted, parts, machine.outline(wanted), _image(base)])
        return hashlib.sha256(text).hexdigest()[:32]

    def _read_parts(self, wanted: Machine) -> dict[str, str]:
        files = (self._guest(wanted) / name for name in ("kernel", "initramfs"))
        parts = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        parts["qemu"] = _program_identity(Path(wanted.qemu))
        return {**parts, "processor": processor_model(), "disks": f"{disks.BASE_SIZE}+{disks.UPPER_SIZE}"}

    def _unchanged(self, template: Template) -> bool:
        """Whether the files are those whose digests were checked (by inode, size and time of change)."""
        try:
            return all(self._checked.get(path) == identity(path) for path in template.files)
        except OSError:
            return False

    async def _load(self, key: str, base: Path | None) -> Template | None:
        directory = self._root / key
        template = Template(key=key, directory=directory, image=_image(base))
        try:
            manifest = msgspec.json.decode((directory / "manifest").read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError):
            await self._discard(directory, "manifest")
            return None
        for path in template.files:
            try:
                before = identity(path)
                found = await blocking(digest, path)
                good = found == manifest.digests.get(path.name) and identity(path) == before
            except (OSError, BastideError):
                good = False
            if not good:
                await self._discard(directory, path.name)
                return None
            self._checked[path] = before
        with contextlib.suppress(OSError):
            os.utime(directory)
        self._ready[key] = template
        return template

    async def _discard(self, directory: Path, name: str) -> None:
        """Remove a template whose file `name` is not as it was made, and say so."""
        if directory.exists():
            log.warning("the VM template %s was altered (%s): it is removed and made again", directory.name, name)
            await self._drop(directory)

    async def _drop(self, directory: Path) -> None:
        if directory.exists():
            gone = directory.with_name(f".gone-{directory.name}-{os.urandom(4).hex()}")
            with contextlib.suppress(OSError):
                directory.rename(gone)
                await blocking(shutil.rmtree, gone, True)

    async def _build(self, key: str, wanted: Machine, base: Path | None, program: Program | None) -> Template:
        origin = await self.need(wanted) if base is not None else None
        work, lock = await blocking(self._workplace, key)
        try:
            await self._lay_out(work, wanted, origin)
            plan = await self._plan(work, wanted, origin, base)
            await self._run(work, plan, None if base is None else program or Program())
            await blocking(self._seal, work, Manifest(wanted, self._parts[wanted.architecture], {}, _image(base)))
            # Where another daemon was faster this fails: its template, already in use, stays.
            with contextlib.suppress(OSError):
                work.rename(self._root / key)
        finally:
            os.close(lock)
            await blocking(shutil.rmtree, work, True)
        await self._bound(key)
        template = await self._load(key, base)
        if template is None:
            raise GuestError("the VM template that was just made cannot be read back")
        return template

    def _workplace(self, key: str) -> tuple[Path, int]:
        """A new folder to make a template in, and its lock. Blocks."""
        while True:
            work = self._root / f".build-{key[:12]}-{os.urandom(4).hex()}"
            work.mkdir(parents=True, mode=0o700)
            # Until it is locked, a daemon that begins takes it for what a killed one has left.
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                lock = _lock(work)
                if work.exists():
                    return work, lock
                os.close(lock)

    async def _lay_out(self, work: Path, wanted: Machine, origin: Template | None) -> None:
        """The files that the template is made in: empty, or the origin's memory and an empty writable disk."""
        disks.placeholder(work / "base", disks.BASE_SIZE)
        if origin is None:
            disks.placeholder(work / "ram", wanted.memory)
            disks.placeholder(work / "upper", disks.UPPER_SIZE)
        else:
            await blocking(disks.copy_sparse, origin.ram, work / "ram")
            await disks.format_upper(work / "upper")
        os.chown(work / "ram", self._settings.vm_uid_base, self._settings.vm_uid_base)

    async def _plan(self, work: Path, wanted: Machine, origin: Template | None, base: Path | None) -> Plan:
        """How QEMU runs while the template is made: booted, or restored from the origin."""
        plan = Plan(self._settings.vm_uid_base)
        # QEMU ends with this process's end of a pipe: a daemon that is killed leaves none behind.
        plan.leash()
        plan.vendor(Path("agent.sock"))
        boot = None
        if origin is None:
            tsc = await self._tsc() if wanted.accelerator is Accelerator.TCG else 0
            guest = self._guest(wanted)
            boot = Boot(kernel=guest / "kernel", initramfs=guest / "initramfs", tsc=tsc)
        machine.describe(
            plan,
            wanted,
            ram=work / "ram",
            base=base or work / "base",
            upper=work / "upper",
            taps=[""] * wanted.nics,
            control=Path("qmp.sock"),
            boot=boot,
            state=origin.state if origin else None,
            shared=True,
        )
        return plan

    async def _run(self, work: Path, plan: Plan, program: Program | None) -> None:
        """Run QEMU until the guest is ready, mount the image if there is one (and a program), save, end QEMU."""
        (work / "plan").write_text(plan.text())
        leash, held = os.pipe()
        try:
            with (work / "errors").open("wb") as errors:
                child = await self._spawner.spawn(
                    [self.guest / "vmm", "create", *("--bundle", work), *("--pid-file", work / "pid"), work.name],
                    stdin=leash,
                    stderr=errors.fileno(),
                )
                code = await child.wait()
                child.close()
            if code:
                raise GuestError(f"a VM template cannot be started: {_complaint(work / 'errors')}")
            await self._freeze(work, program)
        except (GuestError, Unavailable, NotFound) as error:
            # The monitor says why on its way out.
            await blocking(_end, work / "pid", 1.0)
            raise GuestError(f"a VM template does not boot: {_complaint(work / 'errors') or error.message}") from error
        finally:
            os.close(leash)
            os.close(held)
            await blocking(_end, work / "pid")

    async def _freeze(self, work: Path, program: Program | None) -> None:
        agent = await Agent.connect(work / "agent.sock")
        try:
            await agent.hello(_BOOT_TIMEOUT)
            if program is not None:
                await agent.ask(Ask.CLOCK, process.clock())
                await agent.ask(Ask.MOUNT)
                # One process, so that its clones' first finds the kernel's caches filled.
                await inside.warm(agent, program.path, program.name)
            # What the kernel put off until later, each clone would do again; so also what it does not wake up for, but
            # does when it finds itself awake.
            await asyncio.sleep(_SETTLE if program is None else _SETTLE_IMAGE)
            for _ in range(_WAKES):
                await agent.ask(Ask.CLOCK, process.clock())
            await asyncio.sleep(_PAUSE)
        finally:
            agent.close()
        file = os.open(work / "state", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            async with qmp.connect(work / "qmp.sock") as monitor:
                await monitor.save(file)
        finally:
            os.close(file)

    def _seal(self, work: Path, manifest: Manifest) -> None:
        """Take the files from QEMU's uid, note their digests."""
        for name in ("ram", "state", "upper"):
            os.chown(work / name, 0, 0)
            (work / name).chmod(0o444)
        digests = {name: digest(work / name) for name in ("ram", "state", "upper")}
        (work / "manifest").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, digests=digests)))
        for name in ("plan", "pid", "hypervisor", "errors", "agent.sock", "qmp.sock"):
            (work / name).unlink(missing_ok=True)

    async def _tsc(self) -> int:
        done = await run([self.guest / "vmm", "tsc"], timeout=5)
        return int(done.stdout) if done.stdout.strip().isdigit() else 0

    async def _bound(self, keep: str) -> None:
        """Remove the templates that were unused longest until the rest is within the limit; none that is in use."""
        found = []
        for directory in self._root.iterdir():
            if directory.is_dir() and not directory.name.startswith("."):
                size = sum(path.stat().st_blocks * 512 for path in directory.iterdir())
                found.append((directory.stat().st_mtime, size, directory))
        total = sum(size for _, size, _ in found)
        for _, size, directory in sorted(found):
            if total > self._settings.template_limit and directory.name != keep and not _in_use(directory):
                await self._drop(directory)
                total -= size

    async def sweep(self) -> None:
        """Remove what a daemon that was killed has left. Call once, before the first `get`."""
        if not self._root.is_dir():
            return
        for directory in self._root.glob(".*"):
            try:
                lock = _lock(directory)
            except OSError:
                continue
            try:
                await blocking(_end, directory / "pid")
                await blocking(shutil.rmtree, directory, True)
            finally:
                os.close(lock)


def _image(base: Path | None) -> str:
    """What tells images apart: the name of the disk, which is a digest of the layers."""
    return base.stem if base is not None else ""


def _lock(directory: Path) -> int:
    """Take a folder that is being worked in; whoever dies lets go. Raises OSError when another has it."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _in_use(directory: Path) -> bool:
    """Whether a VM maps the template's memory, or is about to."""
    try:
        if time.time() - directory.stat().st_mtime < _FRESH:
            return True
        file = os.open(directory / "ram", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # A lease for writing is given only on a file that nobody else has open (fcntl(2), "Leases").
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(file)
    return False


def identity(path: Path) -> tuple[int, int, int]:
    """What tells that a file is as it was: inode, size, time of change. Raises OSError."""
    info = path.stat()
    return info.st_ino, info.st_size, info.st_ctime_ns


def _complaint(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("bastide: ") if lines else ""


def _end(pid_file: Path, grace: float = 0.0) -> None:
    """Kill the monitor that a pid file names, if it still is one after `grace` seconds, and wait for its end."""
    try:
        pid = int(pid_file.read_text())
        handle = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        ours = str(pid_file.parent) in command_line(pid)
        if ours and not select.select([handle], [], [], grace)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], 5)
    except OSError:
        pass
    finally:
        os.close(handle)

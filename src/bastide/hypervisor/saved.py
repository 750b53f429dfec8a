"""Saved states of running VMs: the memory, the devices and the writable disk as they were at one moment.

`ram` is the file that the memory began as, `state` what was written to it since, and the devices.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from bastide.host.syscalls import blocking
from bastide.hypervisor import disks, memory, qmp, shares
from bastide.hypervisor.accelerator import Accelerator
from bastide.hypervisor.machine import Machine
from bastide.hypervisor.template import digest, identity, processor_model
from bastide.model.errors import BastideError, Conflict, NotFound


class Manifest(msgspec.Struct, frozen=True):
    """What a saved state needs to be restored, and how to know it again."""

    machine: Machine
    digests: dict[str, str]
    form: int = 1
    """How the files are laid out."""
    shares: int = 0
    """How many trees of the host's the guest has; what it holds of them is in a file of its own (`shares`)."""
    processor: str = ""
    """The host's model, where it matters to the guest: not under emulation."""


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _processor(machine: Machine) -> str:
    return processor_model() if machine.accelerator is Accelerator.KVM else ""


_FORM = 2
_SPARSE = ("ram", "upper")
_HYPERVISOR = "hypervisor"
"""The file in a VM's directory that says which process is its QEMU (monitor/vmm.c)."""
Seen = tuple[tuple[int, int, int], ...]
"""The files of a saved state, by inode, size and time of change: while these are the same, so is what is in them."""


def look(directory: Path, trees: int) -> Seen:
    """The files as they are now. Raises OSError."""
    ram = (directory / "ram").stat()
    # A file that gets another name is "changed" by that: the time at which it was written is what counts here.
    return (
        (ram.st_ino, ram.st_size, ram.st_mtime_ns),
        *(identity(directory / name) for name in _names(trees) if name != "ram"),
    )


async def write(
    home: Path,
    uid: int,
    upper: Path,
    machine: Machine,
    directory: Path,
    *,
    paused: bool = False,
    trees: int = 0,
    lasting: bool = True,
) -> Seen:
    """Save the VM whose monitor works in `home` into `directory`; it goes on afterwards unless it was `paused`.

    With `trees` of the host's its guest must be frozen: what it holds of them was written down then. What is not
    `lasting` has no digests, and its memory's file is where the VM has it, while it runs: only who has what this
    returns can read it. Gives the files as they were written.

    Raises ResourceExhausted, HostError, Unavailable, GuestError, Conflict; then the VM goes on and nothing usable
    is left.
    """
    pid = await blocking(_hypervisor, home)
    async with qmp.connect(home / "qmp.sock") as monitor:
        try:
            await monitor.halt()
            # The guest stands still: its disk is what its memory thinks it is.
            devices = await monitor.devices()
            await blocking(_write, pid, uid, machine.memory, directory, devices, lasting=lasting)
            await blocking(disks.copy_sparse, upper, directory / "upper")
            if trees:
                await blocking(shutil.copyfile, home / shares.SAVED, directory / shares.SAVED)
        finally:
            if not paused:
                await monitor.proceed()
    seen = look(directory, trees)
    digests = await blocking(_digests, directory, trees) if lasting else {}
    manifest = Manifest(machine, digests, _FORM, trees, _processor(machine))
    (directory / "manifest").write_bytes(msgspec.json.encode(manifest))
    return seen


def _hypervisor(home: Path) -> int:
    """The pid of a VM's QEMU. Raises Conflict."""
    try:
        return int((home / _HYPERVISOR).read_text())
    except (OSError, ValueError) as error:
        raise Conflict("the virtual machine was started by an older bastide: restart it to save it") from error


def _write(pid: int, uid: int, size: int, directory: Path, devices: bytes, *, lasting: bool) -> None:
    with (directory / "state").open("wb") as state:
        os.fchmod(state.fileno(), 0o600)
        memory.save(pid, uid, size, directory / "ram", state, lasting=lasting)
        state.write(memory.devices(devices))


def described(directory: Path) -> Manifest:
    """What a saved state says of itself. Raises NotFound."""
    try:
        return msgspec.json.decode((directory / "manifest").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise NotFound(f"no saved memory in {directory}") from error


def _names(trees: int) -> tuple[str, ...]:
    return ("ram", "state", "upper", *((shares.SAVED,) if trees else ()))


def _digests(directory: Path, trees: int) -> dict[str, str]:
    return {name: (digest if name in _SPARSE else _sum)(directory / name) for name in _names(trees)}


async def read(directory: Path, version: tuple[int, int, int], seen: Seen | None = None) -> Manifest:
    """What was saved, after its files were checked, unless they are as this daemon has `seen` them.

    Raises NotFound (nothing was saved), Conflict (files were altered, or another QEMU saved them).
    """
    manifest = described(directory)
    if manifest.form != _FORM:
        raise Conflict("the memory was saved by another version of bastide: restore the files alone (--disk-only)")
    if manifest.machine.version != version:
        saved, here = (".".join(map(str, one)) for one in (manifest.machine.version, version))
        raise Conflict(f"the memory was saved by QEMU {saved}, this is {here}: restore the files alone (--disk-only)")
    if manifest.processor != _processor(manifest.machine):
        here = _processor(manifest.machine)
        raise Conflict(
            f"the memory was saved on {manifest.processor!r}, this is {here!r}: restore the files alone (--disk-only)"
        )
    try:
        good = seen == look(directory, manifest.shares)
        good = good or manifest.digests == await blocking(_digests, directory, manifest.shares)
    except (OSError, BastideError):
        good = False
    if not good:
        raise Conflict(f"the saved memory in {directory} was altered: it is not restored")
    return manifest

"""The QEMU programs that are here, one for each architecture: whether each works, its version, its accelerator."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from bastide.host.syscalls import run
from bastide.hypervisor import accelerator
from bastide.hypervisor.accelerator import Accelerator
from bastide.hypervisor.architecture import Architecture
from bastide.model.config import Settings
from bastide.model.errors import BastideError, Unsupported
from bastide.runtime import Probe
from bastide.runtime.monitor import find

_VERSION = re.compile(r"version (\d+)\.(\d+)\.(\d+)")
_OLDEST = (7, 2, 0)


class Emulators:
    """What QEMU can make machines of here. One object in a daemon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._probes: dict[str, Probe] = {}
        self._accelerator: Accelerator | None = None

    async def probe(self, wanted: Architecture) -> Probe:
        """Looks for an architecture's QEMU and the guest's parts; the verdict is kept when it is good."""
        found = self._probes.get(wanted.name)
        if found is None or not found.usable:
            found = self._probes[wanted.name] = await self._ask(wanted)
        return found

    async def _ask(self, wanted: Architecture) -> Probe:
        path = shutil.which(wanted.qemu)
        if path is None:
            return Probe(usable=False, reason=f"{wanted.qemu} is not installed: apt-get install {wanted.package}")
        if os.geteuid() != 0:
            return Probe(usable=False, path=path, reason="VMs need root here: run the daemon as root")
        root = self._settings.guest_root
        guest = wanted.guest(root)
        for needed in (root / "vmm", root / "readonly.so", guest / "kernel", guest / "initramfs"):
            if not needed.is_file():
                flag = f" --architecture {wanted.name}" if needed.parent != root else ""
                return Probe(usable=False, path=path, reason=f"{needed} is missing: run scripts/guest{flag}")
        try:
            find()
            said = await run([path, "--version"], timeout=10)
        except BastideError as error:
            return Probe(usable=False, path=path, reason=error.message)
        match = _VERSION.search(said.stdout.decode(errors="replace"))
        if said.code or match is None:
            return Probe(usable=False, path=path, reason=f"{path} --version: {said.complaint}")
        version = ".".join(match.groups())
        if _numbers(version) < _OLDEST:
            return Probe(usable=False, path=path, version=version, reason=f"QEMU {version} is older than 7.2")
        return Probe(usable=True, path=path, version=version)

    async def need(self, wanted: Architecture) -> tuple[str, tuple[int, int, int], Accelerator]:
        """The program's path, its version and what runs the guest's instructions. Raises Unsupported: it lacks what."""
        probe = await self.probe(wanted)
        if not probe.usable:
            what = "" if wanted.native else f" for {wanted.name}"
            raise Unsupported(f"runtime qemu does not work here{what}: {probe.reason}")
        return probe.path, _numbers(probe.version), await self._choose(wanted, Path(probe.path))

    async def _choose(self, wanted: Architecture, path: Path) -> Accelerator:
        if not wanted.native:
            return Accelerator.TCG
        if self._accelerator is None:
            cache = self._settings.data_root / "templates" / "accelerator"
            self._accelerator = await accelerator.choose(path, cache)
        return self._accelerator


def _numbers(version: str) -> tuple[int, int, int]:
    first, second, third = map(int, version.split("."))
    return first, second, third

"""Which architectures' machines work: each lacks what its line says, and the line says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.hypervisor.accelerator import Accelerator
from bastide.hypervisor.architecture import ARCHITECTURES, NATIVE
from bastide.model.config import Settings
from bastide.model.errors import Unsupported
from bastide.runtime import emulators
from bastide.runtime.emulators import Emulators

OTHER = next(model for model in ARCHITECTURES.values() if not model.native)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A guest root with the host's own parts alone, and QEMUs that are scripts."""
    guest, programs = tmp_path / "guest", tmp_path / "bin"
    for folder in (guest, programs):
        folder.mkdir()
    for name in ("kernel", "initramfs", "vmm", "readonly.so"):
        (guest / name).touch()
    for name in (NATIVE.qemu, OTHER.qemu):
        (programs / name).write_text("#!/bin/sh\necho QEMU emulator version 7.2.22\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(emulators.os, "geteuid", lambda: 0)
    monkeypatch.setattr(emulators, "find", lambda: Path("/usr/bin/conmon"))
    return Settings(data_root=tmp_path / "data", run_root=tmp_path / "run", guest_root=guest)


async def test_the_kernel_of_another_architecture_is_asked_for_by_name(settings: Settings) -> None:
    here = Emulators(settings)
    assert (await here.probe(NATIVE)).usable
    with pytest.raises(
        Unsupported, match=f"{OTHER.name}/kernel is missing: run scripts/guest --architecture {OTHER.name}$"
    ):
        await here.need(OTHER)
    # What was installed meanwhile is found.
    folder = settings.guest_root / OTHER.name
    folder.mkdir()
    for name in ("kernel", "initramfs"):
        (folder / name).touch()
    path, version, accelerator = await here.need(OTHER)
    assert path.endswith(OTHER.qemu)
    assert version == (7, 2, 22)
    assert accelerator is Accelerator.TCG


async def test_its_program_is_asked_for_by_package(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unsupported, match=f"{OTHER.qemu} is not installed: apt-get install {OTHER.package}"):
        await Emulators(settings).need(OTHER)


async def test_an_old_program(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "bin" / NATIVE.qemu).write_text("#!/bin/sh\necho QEMU emulator version 6.2.0\n")
    assert "QEMU 6.2.0 is older than 7.2" in (await Emulators(settings).probe(NATIVE)).reason

"""Architectures that VMs can have: how QEMU makes a machine of each, as data.

A machine has no firmware to speak of: QEMU loads the kernel itself. Its devices are virtio over MMIO, which the
kernel finds by ACPI or the device tree. Sources: QEMU's documentation, "microvm virtual platform" and "virt generic
virtual platform"; hw/arm/virt.c for the limits of `virt`.
"""

from __future__ import annotations

import platform
from pathlib import Path

from bastide.model.errors import Unsupported
from bastide.model.process import Struct

_GIGABYTE = 1 << 30


class Architecture(Struct, frozen=True, kw_only=True):
    """One architecture by Go's name. `runs`: images of these architectures run on its kernel.

    `qemu` is the program and `package` what brings it; `machine`, `firmware` and `options` are its words for the
    machine, `processor` the one that is emulated. `console` is the guest's name of the serial port, `kernel` its
    kernel's further words, `emulated` those where it is emulated, `rate` the one that gives it the clock's rate.
    `cpus` and `memory` (in bytes): the most that fits.
    """

    name: str
    runs: frozenset[str]
    qemu: str
    package: str
    machine: str
    processor: str
    console: str
    firmware: str = ""
    options: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    emulated: tuple[str, ...] = ()
    rate: str = ""
    cpus: int
    memory: int

    def check(self, memory: int, cpus: int) -> None:
        """Raise Unsupported when a machine has no room for `memory` bytes or so many processors."""
        if memory > self.memory:
            raise Unsupported(f"a VM for {self.name} has at most {self.memory >> 20} MiB of memory: give it less")
        if cpus > self.cpus:
            raise Unsupported(f"a VM for {self.name} has at most {self.cpus} processors: give it fewer")

    @property
    def native(self) -> bool:
        """Whether it is this host's own."""
        return self is NATIVE

    def guest(self, root: Path) -> Path:
        """Where its kernel and initramfs are, in the folder that holds the guests' parts."""
        return root if self.native else root / self.name


# Five-level page tables and protection keys only make the emulated MMU slower; without "fast strings" the guest's
# kernel copies words, where it would copy bytes that are translated one by one.
_AMD64 = Architecture(
    name="amd64",
    runs=frozenset({"amd64", "386"}),
    qemu="qemu-system-x86_64",
    package="qemu-system-x86",
    machine="microvm,acpi=on,x-option-roms=off,usb=off,graphics=off",
    # Boots a kernel by itself; with ACPI some builds of QEMU take SeaBIOS instead, which needs option ROMs for that.
    firmware="qboot.rom",
    processor="max,la57=off,pku=off,erms=off,fsrm=off",
    console="ttyS0",
    kernel=("reboot=t",),
    # Speculation does not exist in translated code, and its mitigations defeat the translator.
    emulated=("mitigations=off", "tsc=reliable", "no_timer_check"),
    rate="tsc_early_khz",
    cpus=255,
    memory=1 << 40,
)

# The transports of `virt` speak virtio 0.9 unless told otherwise.
_MODERN = ("-global", "virtio-mmio.force-legacy=false")

_ARM64 = Architecture(
    name="arm64",
    runs=frozenset({"arm64"}),
    qemu="qemu-system-aarch64",
    package="qemu-system-arm",
    machine="virt,gic-version=3,usb=off",
    processor="cortex-a72",
    console="ttyAMA0",
    options=_MODERN,
    emulated=("mitigations=off",),
    cpus=123,
    memory=255 * _GIGABYTE,
)

# Its kernel has no large physical addresses: all must be below 4 GiB, RAM begins at 1 GiB.
_ARM = Architecture(
    name="arm",
    runs=frozenset({"arm"}),
    qemu="qemu-system-arm",
    package="qemu-system-arm",
    machine="virt,gic-version=2,highmem=off,usb=off",
    processor="cortex-a15",
    console="ttyAMA0",
    options=_MODERN,
    emulated=("mitigations=off",),
    cpus=8,
    memory=3 * _GIGABYTE,
)

ARCHITECTURES = {one.name: one for one in (_AMD64, _ARM64, _ARM)}

_HOSTS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
NATIVE = ARCHITECTURES[_HOSTS.get(platform.machine(), "amd64")]
"""This host's own: the only one that KVM runs."""


def find(image: str) -> Architecture:
    """The architecture whose machines run an image's programs; "" is this host's. Raises Unsupported."""
    if not image or image in NATIVE.runs:
        return NATIVE
    for one in ARCHITECTURES.values():
        if image in one.runs:
            return one
    raise Unsupported(f"no VM runs programs for {image}: choose one of {', '.join(ARCHITECTURES)}")

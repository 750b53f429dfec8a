"""Which accelerator QEMU shall use: KVM where it is fast, else TCG.

That /dev/kvm opens says little: on a host that is itself a guest, every instruction may be emulated and a
stock kernel crawls. So a tiny firmware runs a loop under KVM, and only its speed decides. The verdict holds
for one boot of the host.
"""

from __future__ import annotations

import enum
import os
import tempfile
from pathlib import Path

from bastide.host.syscalls import run
from bastide.model.errors import BastideError


class Accelerator(enum.StrEnum):
    """How QEMU runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


_TURNS = 5_000_000
_LIMIT = 1.5
"""Seconds for QEMU's start and the loop; native code needs a few milliseconds, emulation minutes."""
_DONE = 0x31
"""Exit status of isa-debug-exit for the value 0x18: `value << 1 | 1`."""
_SIZE = 1 << 16


def firmware() -> bytes:
    """A 64 KiB image: from the reset vector to long mode, a loop, then out through isa-debug-exit.

    Instructions: Intel SDM volume 3, 9.9 (real to protected mode) and 10.8.5 (long mode). The image is
    mapped below 1 MiB at 0xF0000. Descriptors have the Accessed bit set: the image is read-only memory.
    """
    gdt = 0xF100
    code32, code64 = 0xF200, 0xF300
    image = bytearray(_SIZE)

    def put(at: int, text: str) -> None:
        data = bytes.fromhex(text)
        image[at : at + len(data)] = data

    def le(value: int, size: int = 4) -> str:
        return value.to_bytes(size, "little").hex()

    base = 0xF0000
    # Descriptors: null, 64-bit code, 32-bit code, data; all Accessed.
    put(gdt, "0000000000000000 ffff0000009baf00 ffff0000009bcf00 ffff00000093cf00")
    put(gdt + 32, le(31, 2) + le(base + gdt))
    # Real mode: cli; lgdt cs:[gdt+32]; cr0.PE; far jump to 32-bit code.
    put(0xF000, f"fa 2e660f0116{le(gdt + 32, 2)} 0f20c0 6683c801 0f22c0 66ea{le(base + code32)}1000")
    tables = 0x10000
    put(
        code32,
        # Data segments; page tables in RAM: one 2 MiB page maps the low memory.
        f"66b81800 8ed8 8ec0 8ed0 bf{le(tables)} b9{le(3 * 1024)} 31c0 fc f3ab"
        f"c705{le(tables)}{le(tables + 0x1003)} c705{le(tables + 0x1000)}{le(tables + 0x2003)}"
        f"c705{le(tables + 0x2000)}{le(0x83)}"
        # CR3, CR4.PAE, EFER.LME, CR0.PG; far jump to 64-bit code.
        f"b8{le(tables)} 0f22d8 0f20e0 83c820 0f22e0 b9{le(0xC0000080)} 0f32 0d{le(0x100)} 0f30"
        f"0f20c0 0d{le(0x80000000)} 0f22c0 ea{le(base + code64)}0800",
    )
    # The loop: ecx turns of dec/jnz; then out 0xf4, 0x18; hlt.
    put(code64, f"b9{le(_TURNS)} ffc9 75fc b018 e6f4 f4ebfd")
    # Reset vector: jmp to 0xF000 of this segment.
    put(0xFFF0, f"e9{le((0xF000 - 0xFFF3) & 0xFFFF, 2)}")
    return bytes(image)


async def _fast(qemu: Path) -> bool:
    with tempfile.NamedTemporaryFile(prefix="bastide-speed-") as file:
        file.write(firmware())
        file.flush()
        try:
            done = await run(
                [
                    qemu,
                    *("-nodefaults", "-no-user-config"),
                    *("-display", "none"),
                    *("-machine", "pc,accel=kvm"),
                    *("-m", "16"),
                    *("-bios", file.name),
                    *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"),
                ],
                timeout=_LIMIT,
            )
        except BastideError:
            return False
    return done.code == _DONE


async def choose(qemu: Path, cache: Path) -> Accelerator:
    """The accelerator for this host. `cache` is a file that keeps the verdict for this boot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accelerator.TCG
    try:
        kept, verdict = cache.read_text().split()
        if kept == boot:
            return Accelerator(verdict)
    except (OSError, ValueError):
        pass
    verdict = Accelerator.KVM if await _fast(qemu) else Accelerator.TCG
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(f"{boot} {verdict}\n")
    return Accelerator(verdict)

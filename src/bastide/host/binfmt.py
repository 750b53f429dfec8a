"""Programs of other architectures that the kernel hands to an interpreter: what is registered in binfmt_misc.

Format of the files: Linux, Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

from pathlib import Path

from bastide.model.errors import Unsupported

MOUNT = Path("/proc/sys/fs/binfmt_misc")
SETUP = "apt-get install qemu-user-static binfmt-support"

# Class (1: 32 bits, 2: 64), byte order (1: little, 2: big) and machine of an ELF header: System V ABI, chapter 4.
_ELF = {
    "386": (1, 1, 3),
    "amd64": (2, 1, 62),
    "arm": (1, 1, 40),
    "arm64": (2, 1, 183),
    "loong64": (2, 1, 258),
    "mips64le": (2, 1, 8),
    "ppc64le": (2, 1, 21),
    "riscv64": (2, 1, 243),
    "s390x": (2, 2, 22),
}
_EXECUTABLE = 2


def header(architecture: str) -> bytes:
    """The first 20 bytes of a program for an architecture (Go's name). Raises Unsupported for an unknown one."""
    if architecture not in _ELF:
        raise Unsupported(f"architecture {architecture} is not known here")
    bits, order, machine = _ELF[architecture]
    endian = "little" if order == 1 else "big"
    words = (_EXECUTABLE.to_bytes(2, endian), machine.to_bytes(2, endian))  # type: ignore[arg-type]
    return b"\x7fELF" + bytes((bits, order, 1)) + bytes(9) + b"".join(words)


def _matches(text: str, program: bytes) -> bool:
    """Whether an enabled handler's file names a magic that the program begins with."""
    words = {name: value for name, _, value in (line.partition(" ") for line in text.splitlines())}
    if "enabled" not in words or words.get("offset", "0") != "0":
        return False
    try:
        magic = bytes.fromhex(words["magic"])
        mask = bytes.fromhex(words.get("mask", "ff" * len(magic)))
    except (KeyError, ValueError):
        return False
    if not magic or len(mask) != len(magic):
        return False
    padded = program.ljust(len(magic), b"\0")
    return all((a ^ b) & m == 0 for a, b, m in zip(padded, magic, mask, strict=False))


def need(architecture: str, mount: Path = MOUNT) -> None:
    """Raise Unsupported, with what to do, unless containers can run programs for an architecture here.

    The handler must have the flag F: its interpreter was opened when it was registered, since no path to it leads
    out of a container.
    """
    program = header(architecture)
    try:
        if (mount / "status").read_text().strip() == "enabled":
            for entry in sorted(mount.iterdir()):
                if entry.name in ("status", "register"):
                    continue
                text = entry.read_text()
                if not _matches(text, program):
                    continue
                flags = next((line.split(":", 1)[1] for line in text.splitlines() if line.startswith("flags:")), "")
                if "F" in flags:
                    return
                raise Unsupported(f"the handler {entry} has no flag F, which containers need: {SETUP}")
    except OSError:
        pass
    raise Unsupported(f"binfmt_misc has no handler for {architecture}: {SETUP}")

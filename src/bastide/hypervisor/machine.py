"""QEMU's command lines: one machine model for every VM container, booted once and restored ever after.

Model: the smallest machine of its architecture (`architecture`) with virtio-mmio devices and nothing else:
a serial bus with three ports, two disks, the NICs that are asked for, a serial port for the last words.
"""

from __future__ import annotations

from pathlib import Path

from bastide.hypervisor import architecture, qmp
from bastide.hypervisor.accelerator import Accelerator
from bastide.hypervisor.plan import Plan
from bastide.model.process import Struct

# QEMU's documentation, "Security": what a guest's emulator never needs.
_CONFINEMENT = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_FIRMWARE = ("/usr/share/qemu", "/usr/share/seabios")
_VIEW = tuple(map(Path, _LIBRARIES + _FIRMWARE))
"""What QEMU sees of the host's files, beside its program."""


class Machine(Struct, frozen=True, kw_only=True):
    """What decides which template fits: everything that a restore must find as the boot left it.

    `architecture` is a name of the table's; `memory` in bytes; `nics` how many; `spares` how many more can be
    connected while it runs.
    """

    qemu: str
    version: tuple[int, int, int]
    accelerator: Accelerator
    architecture: str = "amd64"
    memory: int
    cpus: int = 1
    nics: int = 0
    spares: int = 0


class Boot(Struct, frozen=True, kw_only=True):
    """What a template is booted from; `tsc` is the time stamp counter's rate in kHz, 0 when unknown."""

    kernel: Path
    initramfs: Path
    tsc: int = 0


def kernel_command_line(machine: Machine, boot: Boot) -> str:
    """Words for the guest's kernel."""
    model = architecture.ARCHITECTURES[machine.architecture]
    words = [
        f"console={model.console}",
        "quiet",
        "loglevel=1",
        "panic=-1",
        "nowatchdog",
        "nosoftlockup",
        # Pressure accounting, groups by terminal, security modules without a policy: translated by each clone.
        "psi=0",
        "lsm=landlock,yama",
        "noautogroup",
        "ipv6.autoconf=0",
        # The machine's wall bounds what the kernel itself uses.
        "cgroup.memory=nokmem,nosocket",
        *model.kernel,
    ]
    if machine.accelerator is Accelerator.TCG:
        words += model.emulated
        words += [f"{model.rate}={boot.tsc}"] if boot.tsc and model.rate else []
    return " ".join(words)


def _processor(machine: Machine) -> list[str]:
    if machine.accelerator is Accelerator.KVM:
        return [*("-accel", "kvm"), *("-cpu", "host,migratable=on")]
    threads = "multi" if machine.cpus > 1 else "single"
    model = architecture.ARCHITECTURES[machine.architecture]
    return [*("-accel", f"tcg,thread={threads},tb-size=64"), *("-cpu", model.processor)]


def _memory(machine: Machine, ram: int, *, shared: bool) -> list[str]:
    words = f"memory-backend-file,id=ram,size={machine.memory},mem-path=/proc/self/fd/{ram}"
    words += ",share=on" if shared else ",share=off"
    return [*("-object", words), *("-m", f"{machine.memory}B")]


def _balloon() -> list[str]:
    """What the guest frees goes back to the host; from a private mapping with `monitor/readonly.c`'s help."""
    return ["-device", "virtio-balloon-device,free-page-reporting=on"]


def _serial(plan: Plan) -> list[str]:
    agent, stdio, shares, console = plan.agent(), plan.stdio(), plan.shares(), plan.console()
    return [
        *("-chardev", f"socket,id=agent,fd={agent}"),
        *("-chardev", f"socket,id=stdio,fd={stdio}"),
        *("-chardev", f"socket,id=shares,fd={shares}"),
        *("-chardev", f"socket,id=console,fd={console}"),
        *("-serial", "chardev:console"),
        *("-device", "virtio-serial-device,max_ports=31"),
        *("-device", "virtserialport,chardev=agent,name=bastide.agent,nr=1"),
        *("-device", "virtserialport,chardev=stdio,name=bastide.stdio,nr=2"),
        *("-device", "virtserialport,chardev=shares,name=bastide.shares,nr=3"),
    ]


def _disks(base: int, upper: int, *, exchangeable: bool) -> list[str]:
    common = "driver=file,locking=off,auto-read-only=off"
    if exchangeable:
        # A node of format raw above each file: that one can be given another file.
        return [
            *("-add-fd", f"fd={base},set=1"),
            *("-add-fd", f"fd={upper},set=2"),
            *("-blockdev", f"{common},node-name=base-0,filename=/dev/fdset/1,read-only=on"),
            *("-blockdev", f"{common},node-name=upper-0,filename=/dev/fdset/2,read-only=off,discard=unmap"),
            *("-blockdev", "driver=raw,node-name=base,file=base-0,read-only=on"),
            *("-blockdev", "driver=raw,node-name=upper,file=upper-0,read-only=off,discard=unmap"),
            *("-device", "virtio-blk-device,drive=base,serial=base"),
            *("-device", "virtio-blk-device,drive=upper,serial=upper"),
        ]
    return [
        *("-add-fd", f"fd={base},set=1"),
        *("-add-fd", f"fd={upper},set=2"),
        *("-blockdev", f"{common},node-name=base,filename=/dev/fdset/1,read-only=on"),
        *("-blockdev", f"{common},node-name=upper,filename=/dev/fdset/2,read-only=off,discard=unmap"),
        *("-device", "virtio-blk-device,drive=base,serial=base"),
        *("-device", "virtio-blk-device,drive=upper,serial=upper"),
    ]


def _nics(machine: Machine, taps: list[int]) -> list[str]:
    """Every NIC has the backend that its state was saved with: a tap, or for the spare ones a hub, which (unlike
    a NIC) takes a tap and lets go of it at any time, but moves packets without offloads."""
    words = []
    for number in range(machine.nics + machine.spares):
        tap = f"tap,id={qmp.TAP}{number},fd={taps[number]}" if number < len(taps) else ""
        nic = f"{qmp.TAP}{number}" if number < machine.nics else f"hub{number}"
        if number >= machine.nics:
            words += ["-netdev", f"hubport,id={nic},hubid={number}"]
        words += ["-netdev", tap] if tap else []
        if number >= machine.nics and tap:
            words += ["-netdev", f"hubport,id={qmp.PORT}{number},hubid={number},netdev={qmp.TAP}{number}"]
        # A clone has nothing to announce before it knows who it is.
        mac = f"02:00:00:00:00:{number:02x}"
        words += ["-device", f"virtio-net-device,netdev={nic},mac={mac},guest_announce=off"]
    return words


def _restore(state: int) -> list[dict[str, object]]:
    """The QMP commands of a restore from descriptor `state`; the memory is a file that was mapped already."""
    return [
        {"execute": "qmp_capabilities"},
        {"execute": "migrate-set-capabilities", "arguments": {"capabilities": qmp.IGNORE_SHARED}},
        {"execute": "migrate-incoming", "arguments": {"uri": f"fd:{state}"}},
    ]


def describe(
    plan: Plan,
    machine: Machine,
    *,
    ram: Path,
    base: Path,
    upper: Path,
    taps: list[str],
    control: Path,
    boot: Boot | None = None,
    state: Path | None = None,
    shared: bool = False,
    exchangeable: bool = False,
) -> None:
    """Write the command line of a boot (`boot`) or of a restore (`state`) into `plan`.

    `ram` is the memory's file. `shared`: the guest writes into the file itself, as a template in the making does.
    `exchangeable`: the disks are given other files later.
    """
    model = architecture.ARCHITECTURES[machine.architecture]
    program = Path(machine.qemu)
    for path in (*dict.fromkeys((program, program.resolve())), *_VIEW):
        plan.view(path)
    if machine.accelerator is Accelerator.KVM:
        plan.view(Path("/dev/kvm"))
    memory = plan.write(ram) if shared else plan.read(ram)
    listener = plan.listen(control)
    plan.arguments(
        machine.qemu,
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-sandbox", _CONFINEMENT),
        # What was saved while it stood still runs when it is restored.
        *("-global", "migration.store-global-state=off"),
        # States are of this machine: the manifests beside them say so.
        *("-global", "migration.send-configuration=off"),
        *("-machine", f"{model.machine},memory-backend=ram,suppress-vmdesc=on"),
        *(("-bios", model.firmware) if model.firmware else ()),
        *model.options,
        *_processor(machine),
        *("-smp", str(machine.cpus)),
        *_memory(machine, memory, shared=shared),
        *("-chardev", f"socket,id=qmp,fd={listener},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *_serial(plan),
        *_disks(plan.read(base), plan.write(upper), exchangeable=exchangeable),
        *_nics(machine, [plan.tap(name) for name in taps]),
        *_balloon(),
    )
    if boot:
        kernel, initramfs = plan.read(boot.kernel), plan.read(boot.initramfs)
        plan.arguments(
            *("-kernel", f"/proc/self/fd/{kernel}"),
            *("-initrd", f"/proc/self/fd/{initramfs}"),
            *("-append", kernel_command_line(machine, boot)),
        )
    if state:
        setup = plan.setup(*_restore(plan.read(state)))
        plan.arguments(
            *("-chardev", f"socket,id=setup,fd={setup}"),
            *("-mon", "chardev=setup,mode=control"),
            *("-incoming", "defer"),
        )


def exchange(plan: Plan, base: Path, upper: Path) -> None:
    """Give the disks of a stopped VM, made `exchangeable`, their files (blockdev-reopen of QEMU's qapi schema)."""
    for number, (name, path, read_only) in enumerate((("base", base, True), ("upper", upper, False)), 3):
        added: dict[str, object] = {"execute": "add-fd", "arguments": {"fdset-id": number}}
        plan.tell(added, read=path if read_only else None, write=None if read_only else path)
        file = {
            "driver": "file",
            "node-name": f"{name}-1",
            "filename": f"/dev/fdset/{number}",
            "read-only": read_only,
            "locking": "off",
            "auto-read-only": False,
            **({} if read_only else {"discard": "unmap"}),
        }
        plan.tell({"execute": "blockdev-add", "arguments": file})
        raw = {"driver": "raw", "node-name": name, "file": f"{name}-1", "read-only": read_only}
        options = [raw if read_only else {**raw, "discard": "unmap"}]
        plan.tell({"execute": "blockdev-reopen", "arguments": {"options": options}})


def outline(wanted: Machine) -> str:
    """Everything on the command lines but paths: what a template's key must tell apart."""
    plan, nowhere = Plan(1), Path("-")
    boot = Boot(kernel=nowhere, initramfs=nowhere)
    taps = [""] * wanted.nics
    describe(plan, wanted, ram=nowhere, base=nowhere, upper=nowhere, taps=taps, control=nowhere, boot=boot, shared=True)
    return plan.text()

"""QEMU's command lines and the plan that the monitor reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bastide.hypervisor import machine
from bastide.hypervisor.accelerator import Accelerator, choose, firmware
from bastide.hypervisor.architecture import ARCHITECTURES, NATIVE, find
from bastide.hypervisor.machine import Boot, Machine
from bastide.hypervisor.plan import Plan
from bastide.model.errors import InvalidArgument, Unsupported


def made(**changes: object) -> Machine:
    values = {"qemu": "/usr/bin/qemu", "version": (7, 2, 22), "accelerator": Accelerator.TCG, "memory": 256 << 20}
    return Machine(**{**values, **changes})  # type: ignore[arg-type]


def plan_text(wanted: Machine, *, boot: Boot | None = None, state: Path | None = None) -> str:
    plan = Plan(2_000_000_001)
    plan.vendor(Path("agent.sock"))
    machine.describe(
        plan,
        wanted,
        ram=Path("/t/ram"),
        base=Path("/i/base"),
        upper=Path("/s/upper"),
        taps=["tap0"] * wanted.nics,
        control=Path("qmp.sock"),
        boot=boot,
        state=state,
        shared=boot is not None,
    )
    return plan.text()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("restore-tcg", made(nics=1)),
        ("restore-kvm", made(accelerator=Accelerator.KVM, cpus=2, version=(10, 0, 2))),
        ("restore-arm64", made(architecture="arm64", qemu="/usr/bin/qemu-arm", nics=1)),
    ],
)
def test_restore(golden: Callable[[str, str], None], name: str, wanted: Machine) -> None:
    golden(f"qemu/{name}.plan", plan_text(wanted, state=Path("/t/state")))


@pytest.mark.parametrize(("name", "architecture"), [("boot-tcg", "amd64"), ("boot-arm", "arm")])
def test_boot(golden: Callable[[str, str], None], name: str, architecture: str) -> None:
    boot = Boot(kernel=Path("/g/kernel"), initramfs=Path("/g/initramfs"), tsc=2_400_000)
    golden(f"qemu/{name}.plan", plan_text(made(architecture=architecture), boot=boot))


def test_every_architecture_finds_itself() -> None:
    for name, model in ARCHITECTURES.items():
        assert find(name) is model
    assert find("") is NATIVE
    assert find("386") is ARCHITECTURES["amd64"]
    with pytest.raises(Unsupported, match="s390x"):
        find("s390x")


def test_a_machine_has_an_upper_size() -> None:
    ARCHITECTURES["arm"].check(3 << 30, 8)
    with pytest.raises(Unsupported, match="3072 MiB"):
        ARCHITECTURES["arm"].check((3 << 30) + 1, 1)
    with pytest.raises(Unsupported, match="8 processors"):
        ARCHITECTURES["arm"].check(1 << 28, 9)


def test_a_clone_may_only_read_the_template() -> None:
    lines = plan_text(made(), state=Path("/t/state")).splitlines()
    opened = {line.split(" ", 3)[3]: line.split(" ", 3)[2] for line in lines if line.startswith("fd ")}
    assert opened["/t/ram"] == opened["/t/state"] == opened["/i/base"] == "read"
    assert opened["/s/upper"] == "write"


@pytest.mark.parametrize("path", ["/x\narg -monitor", "/x\0y"])
def test_nothing_slips_into_the_plan(path: str) -> None:
    plan = Plan(1)
    with pytest.raises(InvalidArgument):
        plan.write(Path(path))
    plan.arguments(path)
    with pytest.raises(InvalidArgument):
        plan.text()


def test_firmware_fits_below_the_reset_vector() -> None:
    image = firmware()
    assert len(image) == 65536
    assert image[0xFFF0] == 0xE9


async def test_the_verdict_is_kept_for_this_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cache = tmp_path / "accelerator"
    cache.write_text(f"{boot} kvm\n")
    assert await choose(Path("/nonexistent/qemu"), cache) is Accelerator.KVM
    cache.write_text("another-boot kvm\n")
    assert await choose(Path("/nonexistent/qemu"), cache) is Accelerator.TCG
    assert cache.read_text() == f"{boot} tcg\n"

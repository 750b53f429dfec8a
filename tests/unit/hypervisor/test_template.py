"""Templates: damage is found, crashes leave nothing, making happens once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from bastide.host.processes import Spawner
from bastide.hypervisor import disks
from bastide.hypervisor.accelerator import Accelerator
from bastide.hypervisor.machine import Machine
from bastide.hypervisor.plan import Plan
from bastide.hypervisor.template import Program, Template, Templates, digest
from bastide.model.config import Settings
from bastide.model.errors import GuestError

MACHINE = Machine(qemu="/q", version=(7, 2, 0), accelerator=Accelerator.TCG, memory=1 << 20)


class Quick(Templates):
    """Templates whose making needs no QEMU."""

    made = 0
    fails = False

    async def _lay_out(self, work: Path, wanted: Machine, origin: Template | None) -> None:
        for name in ("ram", "upper"):
            disks.placeholder(work / name, wanted.memory)

    async def _plan(self, work: Path, wanted: Machine, origin: Template | None, base: Path | None) -> Plan:
        return Plan(1)

    async def _run(self, work: Path, plan: Plan, program: Program | None) -> None:
        self.made += 1
        await asyncio.sleep(0.01)
        if self.fails:
            raise GuestError("the guest does not boot")
        (work / "state").write_bytes(os.urandom(1000))
        with (work / "ram").open("r+b") as file:
            file.seek(500_000)
            file.write(os.urandom(5000))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    guest = tmp_path / "guest"
    guest.mkdir()
    for name in ("kernel", "initramfs"):
        (guest / name).write_bytes(name.encode())
    return Settings(data_root=tmp_path / "data", run_root=tmp_path / "run", guest_root=guest)


@pytest.fixture(autouse=True)
def owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root may give files away."""
    monkeypatch.setattr("os.chown", lambda *_: None)


def names(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.data_root / "templates").iterdir())


async def test_many_callers_one_making(settings: Settings) -> None:
    store = Quick(settings, Spawner())
    found = await asyncio.gather(*(store.need(MACHINE) for _ in range(5)))
    assert len({template.key for template in found}) == 1
    assert store.made == 1
    again = Quick(settings, Spawner())
    assert (await again.need(MACHINE)).key == found[0].key
    assert again.made == 0


async def test_a_caller_that_gives_up_leaves_the_making_alone(settings: Settings) -> None:
    store = Quick(settings, Spawner())
    hasty, patient = asyncio.create_task(store.need(MACHINE)), asyncio.create_task(store.need(MACHINE))
    await asyncio.sleep(0)
    hasty.cancel()
    assert (await patient).ram.exists()


@pytest.mark.parametrize("name", ["ram", "state", "upper", "manifest"])
async def test_a_damaged_template_is_made_again(
    settings: Settings, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = await Quick(settings, Spawner()).need(MACHINE)
    path = first.directory / name
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"damaged")
    store = Quick(settings, Spawner())
    assert (await store.need(MACHINE)).directory == first.directory
    assert store.made == 1
    assert caplog.messages == [f"the VM template {first.key} was altered ({name}): it is removed and made again"]


async def test_a_template_swapped_while_the_daemon_runs_is_found(settings: Settings) -> None:
    store = Quick(settings, Spawner())
    first = await store.need(MACHINE)
    other = first.directory / "other"
    other.write_bytes(first.state.read_bytes()[::-1])
    other.rename(first.state)
    await store.need(MACHINE)
    assert store.made == 2


async def test_every_part_counts(settings: Settings) -> None:
    keys = {(await Quick(settings, Spawner()).need(MACHINE)).key}
    (settings.guest_root / "kernel").write_bytes(b"another kernel")
    keys.add((await Quick(settings, Spawner()).need(MACHINE)).key)
    bigger = Machine(qemu="/q", version=(7, 2, 0), accelerator=Accelerator.TCG, memory=2 << 20)
    keys.add((await Quick(settings, Spawner()).need(bigger)).key)
    keys.add((await Quick(settings, Spawner()).need(bigger, Path("/images/a.erofs"))).key)
    for change in ({"version": (7, 2, 1)}, {"accelerator": Accelerator.KVM}, {"cpus": 2}, {"nics": 1}):
        keys.add((await Quick(settings, Spawner()).need(msgspec.structs.replace(bigger, **change))).key)
    program = settings.guest_root / "qemu"
    for content in (b"a program", b"its update"):
        program.write_bytes(content)
        keys.add((await Quick(settings, Spawner()).need(msgspec.structs.replace(bigger, qemu=str(program)))).key)
    assert len(keys) == 10


async def test_a_failure_leaves_nothing(settings: Settings) -> None:
    store = Quick(settings, Spawner())
    store.fails = True
    with pytest.raises(GuestError):
        await store.need(MACHINE)
    assert names(settings) == []


async def test_what_a_killed_daemon_left_is_swept(settings: Settings) -> None:
    left = settings.data_root / "templates" / ".build-x"
    left.mkdir(parents=True)
    (left / "ram").write_bytes(b"half")
    await Quick(settings, Spawner()).sweep()
    assert names(settings) == []


async def test_the_limit_drops_what_was_unused_longest(settings: Settings) -> None:
    small = Settings(
        **{field: getattr(settings, field) for field in ("data_root", "run_root", "guest_root")}, template_limit=1
    )
    store = Quick(small, Spawner())
    first = await store.need(MACHINE)
    os.utime(first.directory, (1, 1))
    with first.ram.open("rb"):
        second = await store.need(MACHINE, Path("/images/a.erofs"))
        assert names(settings) == sorted([first.key, second.key])
    for template in (first, second):
        os.utime(template.directory, (1, 1))
    third = await store.need(MACHINE, Path("/images/b.erofs"))
    # The one that the image's was made from was used just now.
    assert names(settings) == sorted([first.key, third.key])


async def test_two_daemons_make_the_same(settings: Settings) -> None:
    stores = [Quick(settings, Spawner()) for _ in range(2)]
    found = await asyncio.gather(*(store.need(MACHINE) for store in stores))
    assert [store.made for store in stores] == [1, 1]
    assert names(settings) == [found[0].key]
    assert {template.state.read_bytes() for template in found} == {found[0].state.read_bytes()}
    for store in stores:
        assert (await store.need(MACHINE)).key == found[0].key
        assert store.made == 1


async def test_what_another_daemon_works_at_is_not_swept(settings: Settings) -> None:
    making = asyncio.create_task(Quick(settings, Spawner()).need(MACHINE))
    for _ in range(100):
        await asyncio.sleep(0.001)
        if (settings.data_root / "templates").is_dir() and any(name.startswith(".build") for name in names(settings)):
            break
    await Quick(settings, Spawner()).sweep()
    assert (await making).ram.exists()


def test_the_digest_sees_holes_and_lengths(tmp_path: Path) -> None:
    path = tmp_path / "file"
    disks.placeholder(path, 1 << 20)
    empty = digest(path)
    disks.placeholder(path, 2 << 20)
    longer = digest(path)
    with path.open("r+b") as file:
        file.seek(1 << 19)
        file.write(b"x")
    assert len({empty, longer, digest(path)}) == 3
    disks.copy_sparse(path, tmp_path / "copy")
    assert digest(tmp_path / "copy") == digest(path)
    assert (tmp_path / "copy").stat().st_blocks == path.stat().st_blocks


def test_fresh_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "upper"
    path.touch()
    assert not disks.take_fresh(path)
    disks.mark_fresh(path)
    assert disks.take_fresh(path)
    assert not disks.take_fresh(path)

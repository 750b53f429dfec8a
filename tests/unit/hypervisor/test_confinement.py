"""One uid for each QEMU, none twice, none lost."""

from __future__ import annotations

from pathlib import Path

from bastide.hypervisor.confinement import Uids


def test_uids_are_the_lowest_free_ones(tmp_path: Path) -> None:
    uids = Uids(tmp_path / "uids", 1000)
    assert [uids.take(owner) for owner in ("a", "b", "c")] == [1001, 1002, 1003]
    uids.free(1002)
    uids.free(1002)
    assert Uids(tmp_path / "uids", 1000).take("d") == 1002


def test_uids_of_owners_that_are_gone_come_back(tmp_path: Path) -> None:
    uids = Uids(tmp_path / "uids", 1000)
    uids.keep(lambda _: False)
    uids.take("alive")
    uids.take("gone")
    (tmp_path / "uids" / "7").touch()
    uids.keep(lambda owner: owner == "alive")
    assert sorted(path.name for path in (tmp_path / "uids").iterdir()) == ["1"]

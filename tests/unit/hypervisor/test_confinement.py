"""One uid for each QEMU, none twice, none lost."""

from __future__ import annotations

from pathlib import Path

from bastide.hypervisor.confinement import Uids, _limits


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


RESOURCES = {
    "cpu": {"shares": 512, "quota": 50_000, "cpus": "0", "mems": "0"},
    "memory": {"reservation": 1 << 20, "limit": 1 << 28},
    "blockIO": {
        "weight": 300,
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}, {"major": 8, "minor": 16, "rate": 5}],
    },
}


def test_limits_of_version_1() -> None:
    assert _limits(256 << 20, RESOURCES, unified=False) == {
        "memory": {"memory.limit_in_bytes": [str(512 << 20)], "memory.soft_limit_in_bytes": [str(1 << 20)]},
        "pids": {"pids.max": ["64"]},
        "cpu": {"cpu.cfs_period_us": ["100000"], "cpu.cfs_quota_us": ["50000"], "cpu.shares": ["512"]},
        "cpuset": {"cpuset.cpus": ["0"], "cpuset.mems": ["0"]},
        "blkio": {
            "blkio.bfq.weight": ["300"],
            "blkio.throttle.read_bps_device": ["8:0 1000", "8:16 5"],
        },
    }


def test_limits_of_version_2() -> None:
    assert _limits(256 << 20, RESOURCES, unified=True) == {
        "memory": {"memory.max": [str(512 << 20)], "memory.low": [str(1 << 20)]},
        "pids": {"pids.max": ["64"]},
        "cpu": {"cpu.max": ["50000 100000"], "cpu.weight": ["20"]},
        "cpuset": {"cpuset.cpus": ["0"], "cpuset.mems": ["0"]},
        "io": {"io.bfq.weight": ["300"], "io.max": ["8:0 rbps=1000", "8:16 rbps=5"]},
    }


def test_without_wishes_only_what_every_vm_has() -> None:
    assert {name for name, files in _limits(1 << 28, {}, unified=True).items() if files} == {"memory", "pids"}

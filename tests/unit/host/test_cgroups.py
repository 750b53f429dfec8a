"""Control groups of both versions, as files in a folder of the test's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bastide.host import cgroups
from bastide.host.cgroups import Group

V1 = {
    "cpu/g/cpu.stat": "nr_periods 7\nnr_throttled 3\nthrottled_time 900\n",
    "cpuacct/g/cpuacct.usage": "5000000\n",
    "cpuacct/g/cpuacct.stat": "user 2\nsystem 1\n",
    "cpuacct/g/cpuacct.usage_percpu": "4000000 1000000 \n",
    "memory/g/memory.usage_in_bytes": "4096\n",
    "memory/g/memory.max_usage_in_bytes": "8192\n",
    "memory/g/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/g/memory.stat": "cache 1\nrss 2\n",
    "memory/g/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "pids/g/pids.current": "3\n",
    "pids/g/pids.max": "max\n",
    "pids/g/cgroup.procs": "12\n11\n",
    "pids/g/inner/cgroup.procs": "13\n",
    "freezer/g/freezer.state": "THAWED\n",
    "blkio/g/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:0 Sync 9\n8:16 Read 1\n",
}
V2 = {
    "cgroup.controllers": "cpu memory pids io\n",
    "g/cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 3\nthrottled_usec 9\n",
    "g/memory.current": "4096\n",
    "g/memory.peak": "8192\n",
    "g/memory.max": "max\n",
    "g/memory.stat": "anon 1\nfile 2\n",
    "g/memory.events": "low 0\noom 3\noom_kill 2\n",
    "g/pids.current": "3\n",
    "g/pids.max": "100\n",
    "g/cgroup.procs": "12\n11\n",
    "g/inner/cgroup.procs": "13\n",
    "g/cgroup.freeze": "0\n",
    "g/io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=1 wbytes=0\n",
}


@pytest.fixture(params=["v1", "v2"])
def group(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    for name, text in (V1 if request.param == "v1" else V2).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "unified", lambda: request.param == "v2")
    names = sorted({name.split("/")[0] for name in V1})
    monkeypatch.setattr(cgroups, "hierarchies", lambda: {name: tmp_path / name for name in names})
    return Group("/g")


def test_stats(group: Group) -> None:
    stats = group.stats()
    assert stats.cpu_total == 5_000_000
    assert (stats.periods, stats.throttled_periods) == (7, 3)
    assert (stats.memory, stats.memory_max) == (4096, 8192)
    assert stats.memory_limit == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert len(stats.memory_stats) == 2
    assert stats.pids == 3
    assert (stats.block_read, stats.block_write) == (11, 20)


def test_processes_of_the_whole_tree(group: Group) -> None:
    assert group.processes() == [11, 12, 13]


def test_oom(group: Group) -> None:
    assert group.oom_kills() == 2


def test_freezing(group: Group) -> None:
    assert not group.frozen()
    group.freeze(True)
    assert group.frozen()
    group.freeze(False)
    assert not group.frozen()


def test_absent(group: Group) -> None:
    absent = Group("absent")
    assert not absent.exists()
    assert absent.remove()
    assert absent.processes() == []
    assert absent.oom_kills() == 0
    assert absent.stats().memory == 0
    with pytest.raises(FileNotFoundError):
        absent.freeze(True)


def test_not_empty(group: Group) -> None:
    """Files stand for what the kernel would not let go."""
    assert group.exists()
    assert not group.remove()


def test_membership() -> None:
    own = Path("/proc/self/cgroup").read_text().splitlines()[0].split(":", 2)[2].strip("/")
    assert Group(own).holds(os.getpid())
    assert not Group("some/other/group").holds(os.getpid())
    assert not Group(own).holds(1 << 30)


def test_entrances(group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "cpu" / "own"
    own.mkdir(parents=True)
    for place in (tmp_path / "pids" / "g", own):
        place.mkdir(parents=True, exist_ok=True)
        (place / "tasks").touch()
    monkeypatch.setattr(cgroups, "_own_tasks", lambda: frozenset({own / "tasks"}))
    wanted = None if cgroups.unified() else ((str(tmp_path / "pids" / "g" / "tasks"),), (str(own / "tasks"),))
    assert group.entrances() == wanted
    (own / "tasks").unlink()
    assert group.entrances() is None, "there is no way back"


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({}, True),
        ({"pids/g/pids.max": "13"}, True),
        ({"pids/g/pids.max": "12"}, False),
        ({"memory/g/memory.limit_in_bytes": "4196"}, True),
        ({"memory/g/memory.limit_in_bytes": "4195"}, False),
    ],
)
@pytest.mark.parametrize("group", ["v1"], indirect=True)
def test_room(group: Group, tmp_path: Path, limits: dict[str, str], fits: bool) -> None:
    for name, text in limits.items():
        (tmp_path / name).write_text(text)
    assert group.has_room(10, 100) is fits

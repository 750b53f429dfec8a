"""The configuration that a container gets: golden files for whole ones, and the single rules."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bastide.engine.bundle import DEFAULT_CAPABILITIES
from bastide.host import capabilities, cgroups
from bastide.host.capabilities import NAMES as ALL_CAPABILITIES
from bastide.model.container import DeviceMapping, HostConfig, Ulimit
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.process import Bundle, DirectoryRoot, Mount, Networking, Process, TerminalSize
from bastide.runtime import spec

HOST = spec.Host(capabilities=frozenset(capabilities.NAMES) - {"CAP_SYS_RESOURCE"}, open_files=20000, unified=True)
V1 = msgspec.structs.replace(HOST, unified=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\nweb:x:1000:\nextra:x:2000:web\n")
    return tmp_path


@pytest.fixture(autouse=True)
def swap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "swap_counted", lambda: True)


def bundle(tree: Path, host: HostConfig | None = None, **changes: Any) -> Bundle:
    of_process = {key: changes.pop(key) for key in list(changes) if key in Process.__struct_fields__}
    process: dict[str, Any] = {"args": ("sh",), "env": ("PATH=/bin",), "capabilities": DEFAULT_CAPABILITIES}
    made = Bundle(
        id="c" * 64,
        name="name",
        directory=Path("/run/bastide/containers/c"),
        root=DirectoryRoot(path=tree),
        process=Process(**{**process, **of_process}),
        hostname="cafe",
        host_config=host or HostConfig(),
        cgroup_path="/bastide/c",
    )
    return msgspec.structs.replace(made, **changes)


def build(tree: Path, host: HostConfig | None = None, facts: spec.Host = HOST, **changes: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(spec.build(bundle(tree, host, **changes), facts))
    return result


def text(config: dict[str, Any], tree: Path) -> str:
    """For a golden file: without the filter, which has a file of its own, and the test's folder."""
    if "seccomp" in config["linux"]:
        config["linux"]["seccomp"] = f"{len(config['linux']['seccomp']['syscalls'])} rules"
    return json.dumps(config, indent=2).replace(str(tree), "/ROOT") + "\n"


CASES: dict[str, tuple[HostConfig, dict[str, Any]]] = {
    "default": (HostConfig(), {}),
    "limits": (
        HostConfig(
            memory=64 << 20,
            memory_reservation=32 << 20,
            nano_cpus=1_500_000_000,
            cpuset_cpus="0-1",
            pids_limit=100,
            blkio_weight=300,
            oom_score_adj=500,
            ulimits=[Ulimit(name="nofile", soft=1024, hard=1 << 20)],
        ),
        {"rlimits": (("RLIMIT_NOFILE", 1024, 1 << 20),)},
    ),
    "mounts": (
        HostConfig(readonly_rootfs=True, shm_size=1 << 20),
        {
            "hosts": Path("/var/lib/bastide/containers/c/hosts"),
            "hostname_file": Path("/var/lib/bastide/containers/c/hostname"),
            "resolv_conf": Path("/var/lib/bastide/containers/c/resolv.conf"),
            "mounts": (
                Mount(kind="tmpfs", target="/tmp", options=("noexec", "size=1m")),
                Mount(kind="bind", target="/a", source=Path("/srv/a"), options=("rbind",)),
                Mount(kind="bind", target="/b", source=Path("/srv/b"), options=("rbind",), read_only=True),
                Mount(kind="bind", target="/c", source=Path("/srv/c"), options=("bind",), read_only=True),
                Mount(kind="bind", target="/d", source=Path("/srv/d"), propagation="rslave"),
            ),
        },
    ),
    "shared": (
        HostConfig(pid_mode="host", ipc_mode="container:x", uts_mode="host"),
        {
            "networking": Networking(host=True),
            "namespaces": {"pid": "host", "ipc": "/proc/7/ns/ipc", "uts": "host"},
        },
    ),
    "user": (
        HostConfig(security_opt=["no-new-privileges", "seccomp=unconfined", "apparmor=mine"]),
        {"user": "web", "groups": ("3000",), "terminal": True, "size": TerminalSize(rows=30, columns=90),
         "no_new_privileges": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, tree: Path, golden: Callable[[str, str], None]) -> None:
    host, changes = CASES[name]
    golden(f"oci/{name}.json", text(build(tree, host, **changes), tree))


def test_capabilities_outside_the_bounding_set_are_dropped(tree: Path) -> None:
    held = build(tree, capabilities=ALL_CAPABILITIES)["process"]["capabilities"]
    assert "CAP_SYS_RESOURCE" not in held["bounding"]
    assert set(held["bounding"]) == set(held["effective"]) == set(ALL_CAPABILITIES) - {"CAP_SYS_RESOURCE"}
    assert not set(held) & {"ambient", "inheritable"}


def test_other_users_have_no_effective_capabilities(tree: Path) -> None:
    held = build(tree, user="web")["process"]["capabilities"]
    assert held["effective"] == held["permitted"] == []
    assert held["bounding"] == list(DEFAULT_CAPABILITIES)


def test_limits_are_lowered_to_what_is_allowed(tree: Path) -> None:
    wanted = (("RLIMIT_NOFILE", -1, -1), ("RLIMIT_CORE", 5, 10))
    highest = resource.getrlimit(resource.RLIMIT_CORE)[1]
    core = 10 if highest < 0 else min(10, highest)
    assert build(tree, rlimits=wanted)["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000},
        {"type": "RLIMIT_CORE", "soft": min(5, core), "hard": core},
    ]
    free = msgspec.structs.replace(HOST, capabilities=frozenset(capabilities.NAMES))
    raised = build(tree, facts=free, rlimits=wanted)["process"]["rlimits"][0]
    assert raised == {"type": "RLIMIT_NOFILE", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1}
    with pytest.raises(InvalidArgument, match="invalid ulimit type: nonsense"):
        build(tree, rlimits=(("RLIMIT_NONSENSE", 1, 1),))


def test_privileged(tree: Path) -> None:
    config = build(tree, HostConfig(privileged=True), capabilities=ALL_CAPABILITIES)
    linux = config["linux"]
    assert "seccomp" not in linux
    assert "maskedPaths" not in linux
    assert "readonlyPaths" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert {"/dev/null", "/dev/zero"} <= {node["path"] for node in linux["devices"]}
    options = {mount["destination"]: mount["options"] for mount in config["mounts"]}
    assert "ro" not in options["/sys"]
    assert "ro" not in options["/sys/fs/cgroup"]


def test_control_groups_are_read_only(tree: Path) -> None:
    """CVE-2022-0492: a container that can write a v1 release_agent owns the host."""
    for facts in (HOST, V1):
        options = {mount["destination"]: mount["options"] for mount in build(tree, facts=facts)["mounts"]}
        assert "ro" in options["/sys/fs/cgroup"]
        assert "ro" in options["/sys"]


@pytest.mark.parametrize(
    ("facts", "mode", "own"), [(HOST, "", True), (V1, "", False), (V1, "private", True), (HOST, "host", False)]
)
def test_cgroup_namespace(tree: Path, facts: spec.Host, mode: str, own: bool) -> None:
    shared = {"cgroup": "host"} if mode == "host" else {}
    config = build(tree, HostConfig(cgroupns_mode=mode), facts=facts, namespaces=shared)
    assert ({"type": "cgroup"} in config["linux"]["namespaces"]) is own


def test_network_namespace(tree: Path) -> None:
    config = build(tree, networking=Networking(namespace=Path("/run/netns/x")))
    assert {"type": "network", "path": "/run/netns/x"} in config["linux"]["namespaces"]


@pytest.mark.parametrize(
    ("propagation", "root"),
    [("rprivate", ""), ("rslave", "rslave"), ("slave", "rslave"), ("shared", "shared"), ("rshared", "shared")],
)
def test_propagation_reaches_the_root(tree: Path, propagation: str, root: str) -> None:
    mount = Mount(kind="bind", target="/a", source=Path("/a"), propagation=propagation)
    config = build(tree, mounts=(mount,))
    assert config["linux"].get("rootfsPropagation", "") == root
    assert propagation in config["mounts"][-1]["options"]


def test_a_mount_takes_the_place_of_a_default(tree: Path) -> None:
    mount = Mount(kind="bind", target="/dev/shm", source=Path("/dev/shm"))
    found = [entry for entry in build(tree, mounts=(mount,))["mounts"] if entry["destination"] == "/dev/shm"]
    assert [entry["type"] for entry in found] == ["bind"]


def test_masks_can_be_lifted_by_name(tree: Path) -> None:
    assert build(tree)["linux"]["maskedPaths"] == list(spec.MASKED)
    assert build(tree, HostConfig(masked_paths=[], readonly_paths=["/proc/x"]))["linux"]["maskedPaths"] == []
    assert "maskedPaths" not in build(tree, HostConfig(security_opt=["systempaths=unconfined"]))["linux"]


def test_devices(tree: Path) -> None:
    mapping = DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/mine", cgroup_permissions="r")
    linux = build(tree, HostConfig(devices=[mapping], device_cgroup_rules=["c 10:* rw"]))["linux"]
    node = linux["devices"][0]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/mine", "c", 1, 3)
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert linux["resources"]["devices"][-2:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"allow": True, "type": "c", "major": 10, "access": "rw"},
    ]
    with pytest.raises(InvalidArgument, match="/dev/absent"):
        build(tree, HostConfig(devices=[DeviceMapping(path_on_host="/dev/absent")]))


@pytest.mark.parametrize("rule", ["c 1:3", "x 1:3 rwm", "c 1:3 rwx", "c 1:3 rwm\nc 8:0 rwm", "c a:b rwm"])
def test_device_rules_are_checked(tree: Path, rule: str) -> None:
    with pytest.raises(InvalidArgument, match="device cgroup rule"):
        build(tree, HostConfig(device_cgroup_rules=[rule]))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"security_opt": ["nonsense"]}, InvalidArgument, "security-opt"),
        ({"security_opt": ["seccomp={broken"]}, InvalidArgument, "seccomp"),
        ({"security_opt": ["label=type:x"]}, Unsupported, "SELinux"),
        ({"device_requests": [{"Driver": "nvidia"}]}, Unsupported, "GPU"),
    ],
)
def test_what_cannot_be_is_refused(tree: Path, changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        build(tree, HostConfig(**changes))


def test_filters_are_not_smuggled_in(tree: Path) -> None:
    with pytest.raises(InvalidArgument, match="seccomp_bpf_data"):
        build(tree, annotations={"run.oci.seccomp_bpf_data": "AAAA"})


def test_a_command_is_needed(tree: Path) -> None:
    for args in ((), ("",)):
        with pytest.raises(InvalidArgument, match="no command specified"):
            build(tree, args=args)


def test_init(tree: Path) -> None:
    assert build(tree, HostConfig(init=True), args=("a", "b"))["process"]["args"] == [spec.INIT_TARGET, "--", "a", "b"]


def test_home_is_the_users_own(tree: Path) -> None:
    assert "HOME=/home/web" in build(tree, user="web")["process"]["env"]
    assert "HOME=/" in build(tree, user="77")["process"]["env"]
    assert build(tree, env=("HOME=/x",))["process"]["env"] == ["HOME=/x"]

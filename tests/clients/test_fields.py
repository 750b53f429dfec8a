"""Every field of the published ContainerCreate (Docker Engine API 1.47): honoured where it shows, or refused by name.

Each case creates a container with the field, lets it look at itself and reads what it says. Fields that need
more than that have a test of their own, which says so by `@shows`.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from tests.clients.conftest import Docker
from tests.clients.engines import ISOLATION, PEER
from tests.clients.raw import Api

PUBLISHED = {
    "": """Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Env Cmd
        Healthcheck ArgsEscaped Image Volumes WorkingDir Entrypoint NetworkDisabled MacAddress OnBuild Labels StopSignal
        StopTimeout Shell""",
    "Healthcheck": "Test Interval Timeout Retries StartPeriod StartInterval",
    "HostConfig": """CpuShares Memory CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps
        BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus
        CpusetMems Devices DeviceCgroupRules DeviceRequests KernelMemoryTCP MemoryReservation MemorySwap
        MemorySwappiness NanoCpus OomKillDisable Init PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps
        IOMaximumBandwidth Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove
        VolumeDriver VolumesFrom Mounts ConsoleSize Annotations CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch
        ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs
        SecurityOpt StorageOpt Tmpfs UTSMode UsernsMode ShmSize Sysctls Runtime Isolation MaskedPaths ReadonlyPaths""",
    "Mount": "Target Source Type ReadOnly Consistency BindOptions VolumeOptions TmpfsOptions",
    "BindOptions": "Propagation NonRecursive CreateMountpoint ReadOnlyNonRecursive ReadOnlyForceRecursive",
    "VolumeOptions": "NoCopy Labels DriverConfig Subpath",
    "TmpfsOptions": "SizeBytes Mode Options",
    "EndpointSettings": "IPAMConfig Links MacAddress Aliases DriverOpts",
    "IPAMConfig": "IPv4Address IPv6Address LinkLocalIPs",
}
"""Source: the definitions ContainerConfig, HealthConfig, HostConfig, Resources, Mount, EndpointSettings and
EndpointIPAMConfig of Docker's api/swagger.yaml, v1.47."""

SHOWN: set[str] = set()
T = TypeVar("T", bound=Callable[..., Any])


def shows(*fields: str) -> Callable[[T], T]:
    """The test shows these fields."""
    SHOWN.update(fields)
    return lambda test: test


class Case(NamedTuple):
    """A body, what the container is to run, and the pattern of what it says."""

    field: str
    body: dict[str, Any]
    shell: str
    said: str
    walled: str = ""
    """The word of a VM's refusal, where it refuses."""


def host(**fields: Any) -> dict[str, Any]:
    return {"HostConfig": fields}


def mount(**fields: Any) -> dict[str, Any]:
    return host(Mounts=[{"Target": "/m", **fields}])


def group(v1: str, v2: str) -> str:
    """A shell line that prints a file of the container's cgroup, of either version."""
    return f"cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"


_MOUNTINFO = "grep ' /m ' /proc/self/mountinfo | tail -n1"
_PROFILE = json.dumps(
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
)

CASES = [
    Case("Hostname", {"Hostname": "me"}, "hostname; cat /etc/hostname; grep -c me /etc/hosts", "me\nme\n1"),
    Case("Domainname", {"Domainname": "example.org"}, "cat /proc/sys/kernel/domainname", "example.org"),
    Case("User", {"User": "1000:7"}, "id -u; id -g", "1000\n7"),
    Case("ExposedPorts", {"ExposedPorts": {"80/tcp": {}, "90/udp": {}}}, "echo", "()"),
    Case("Tty", {"Tty": True}, "test -t 1 && echo terminal", "terminal"),
    Case("OpenStdin", {"OpenStdin": True}, "echo", ""),
    Case("Env", {"Env": ["A=1", "B=two words", "C="]}, 'echo "$A|$B|$C|"', r"1\|two words\|\|"),
    Case("Cmd", {}, "echo given", "given"),
    Case("Entrypoint", {"Entrypoint": ["echo"], "Cmd": ["given"]}, "", "given"),
    Case("Image", {"Image": "busybox:latest"}, "echo here", "here"),
    Case("Volumes", {"Volumes": {"/m": {}}}, _MOUNTINFO, ".+ /m .+", "volume"),
    Case("WorkingDir", {"WorkingDir": "/new/dir"}, "pwd", "/new/dir"),
    Case("NetworkDisabled", {"NetworkDisabled": True}, "ls /sys/class/net", "lo"),
    Case("MacAddress", {"MacAddress": "02:42:00:00:00:77"}, "cat /sys/class/net/eth0/address", "02:42:00:00:00:77"),
    Case("HostConfig.CpuShares", host(CpuShares=512), group("cpu/cpu.shares", "cpu.weight"), "512|20", "CpuShares"),
    Case(
        "HostConfig.Memory",
        host(Memory=64 << 20),
        f"test -d /sys/fs/cgroup || free -m; {group('memory/memory.limit_in_bytes', 'memory.max')}",
        str(64 << 20),
    ),
    Case(
        "HostConfig.MemorySwap",
        host(Memory=64 << 20, MemorySwap=96 << 20),
        group("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
        f"{96 << 20}|{32 << 20}",
        "MemorySwap",
    ),
    Case("HostConfig.ConsoleSize", {"Tty": True, **host(ConsoleSize=[7, 77])}, "stty size", "7 77"),
    Case("HostConfig.Runtime", host(Runtime="runc"), "echo ran", "ran", "runc"),
    Case("HostConfig.CgroupParent", host(CgroupParent="/asked"), "cat /proc/self/cgroup", r"(?s).*", "CgroupParent"),
    Case(
        "HostConfig.CpuPeriod",
        host(CpuPeriod=50000, CpuQuota=20000),
        group("cpu/cpu.cfs_period_us", "cpu.max"),
        "(20000 )?50000",
        "CpuPeriod",
    ),
    Case(
        "HostConfig.CpuQuota",
        host(CpuQuota=20000),
        group("cpu/cpu.cfs_quota_us", "cpu.max"),
        "20000( 100000)?",
        "CpuQuota",
    ),
    Case(
        "HostConfig.CpusetCpus",
        host(CpusetCpus="0"),
        "grep Cpus_allowed_list /proc/self/status",
        r"Cpus_allowed_list:\s+0",
        "CpusetCpus",
    ),
    Case(
        "HostConfig.CpusetMems",
        host(CpusetMems="0"),
        "grep Mems_allowed_list /proc/self/status",
        r"Mems_allowed_list:\s+0",
        "CpusetMems",
    ),
    Case(
        "HostConfig.Devices",
        host(Devices=[{"PathOnHost": "/dev/null", "PathInContainer": "/dev/m", "CgroupPermissions": "rw"}]),
        "echo x > /dev/m && ls -l /dev/m | cut -c1",
        "c",
        "--device",
    ),
    Case(
        "HostConfig.DeviceCgroupRules",
        host(DeviceCgroupRules=["c 10:229 rw"], CapAdd=["MKNOD"]),
        "echo",
        "",
        "--device",
    ),
    Case(
        "HostConfig.MemoryReservation",
        host(MemoryReservation=32 << 20),
        group("memory/memory.soft_limit_in_bytes", "memory.low"),
        str(32 << 20),
        "MemoryReservation",
    ),
    Case(
        "HostConfig.NanoCpus", host(NanoCpus=500_000_000), group("cpu/cpu.cfs_quota_us", "cpu.max"), "50000( 100000)?"
    ),
    Case("HostConfig.PidsLimit", host(PidsLimit=33), group("pids/pids.max", "pids.max"), "33", "PidsLimit"),
    Case("HostConfig.Init", host(Init=True), r"tr '\0' ' ' < /proc/1/cmdline", ".*init.*"),
    Case(
        "HostConfig.Ulimits",
        host(Ulimits=[{"Name": "nofile", "Soft": 100, "Hard": 200}]),
        "ulimit -n; ulimit -Hn",
        "100\n200",
    ),
    Case("HostConfig.Dns", host(Dns=["192.0.2.53"]), "grep ^nameserver /etc/resolv.conf", "nameserver 192.0.2.53"),
    Case(
        "HostConfig.DnsOptions",
        host(DnsOptions=["timeout:7"]),
        "grep ^options /etc/resolv.conf",
        "options .*timeout:7.*",
    ),
    Case(
        "HostConfig.DnsSearch",
        host(DnsSearch=["a.test", "b.test"]),
        "grep ^search /etc/resolv.conf",
        "search a.test b.test",
    ),
    Case(
        "HostConfig.ExtraHosts",
        host(ExtraHosts=["far:192.0.2.9", "near:host-gateway"]),
        "grep -E 'far|near' /etc/hosts",
        r"192\.0\.2\.9\s+far\n1\d+\.[\d.]+\s+near",
    ),
    Case("HostConfig.GroupAdd", host(GroupAdd=["77", "88"]), "id -G", "0 .*77 88"),
    Case("HostConfig.CapAdd", host(CapAdd=["NET_ADMIN"]), "grep CapEff /proc/self/status", r"CapEff:\s+0+a80435fb"),
    Case("HostConfig.CapDrop", host(CapDrop=["ALL"]), "grep CapEff /proc/self/status", r"CapEff:\s+0+"),
    Case("HostConfig.CgroupnsMode", host(CgroupnsMode="private"), "grep -vc ':/$' /proc/self/cgroup", "0"),
    Case(
        "HostConfig.IpcMode",
        host(IpcMode="none"),
        "test -e /dev/shm/. && grep -c ' /dev/shm ' /proc/self/mountinfo || echo 0",
        "0",
        "IpcMode",
    ),
    Case("HostConfig.NetworkMode", host(NetworkMode="none"), "ls /sys/class/net", "lo"),
    Case("HostConfig.OomScoreAdj", host(OomScoreAdj=321), "cat /proc/self/oom_score_adj", "321"),
    Case("HostConfig.PidMode", host(PidMode="host"), r"tr '\0' ' ' < /proc/1/cmdline", "(?!sh ).*", "shared namespace"),
    Case("HostConfig.UTSMode", host(UTSMode="host"), "hostname", socket.gethostname(), "shared namespace"),
    Case("HostConfig.Privileged", host(Privileged=True), "mount -t tmpfs none /tmp && echo mounted", "mounted"),
    Case(
        "HostConfig.ReadonlyRootfs",
        host(ReadonlyRootfs=True),
        "touch /x 2>&1 || echo refused",
        "(?s).*Read-only.*refused",
    ),
    Case(
        "HostConfig.SecurityOpt",
        host(SecurityOpt=["no-new-privileges"]),
        "grep NoNewPrivs /proc/self/status",
        r"NoNewPrivs:\s+1",
    ),
    Case(
        "HostConfig.SecurityOpt",
        host(SecurityOpt=["seccomp=unconfined"]),
        "grep -w Seccomp: /proc/self/status",
        r"Seccomp:\s+0",
    ),
    Case(
        "HostConfig.SecurityOpt",
        host(SecurityOpt=[f"seccomp={_PROFILE}"]),
        "mkdir /x 2>&1 || echo refused",
        "(?s).*not permitted.*refused",
        "seccomp",
    ),
    Case("HostConfig.SecurityOpt", host(SecurityOpt=["apparmor=unconfined"]), "echo free", "free"),
    Case(
        "HostConfig.MaskedPaths",
        host(MaskedPaths=[], ReadonlyPaths=[]),
        "grep -c -e ' /proc/kcore ' -e ' /proc/sys ' /proc/self/mountinfo",
        "0",
    ),
    Case(
        "HostConfig.ReadonlyPaths",
        host(ReadonlyPaths=["/proc/fs"]),
        "grep -o -e ' /proc/fs ro' -e ' /proc/sys ro' /proc/self/mountinfo",
        "/proc/fs ro",
        "ReadonlyPaths",
    ),
    Case(
        "HostConfig.Tmpfs",
        host(Tmpfs={"/m": "size=1m,mode=1777,exec"}),
        _MOUNTINFO,
        r"(?!.*noexec).* /m rw,nosuid,nodev.* - tmpfs tmpfs .*size=1024k.*",
    ),
    Case("HostConfig.ShmSize", host(ShmSize=3 << 20), "df -k /dev/shm | tail -n1", r"shm\s+3072\s.*"),
    Case("HostConfig.Sysctls", host(Sysctls={"net.ipv4.ip_forward": "0"}), "cat /proc/sys/net/ipv4/ip_forward", "0"),
    Case("HostConfig.Binds", host(Binds=["/usr/share:/m:ro"]), _MOUNTINFO, ".* /m ro.*", "bind mount"),
    Case(
        "HostConfig.VolumeDriver", host(VolumeDriver="local", Binds=["fieldvol:/m"]), _MOUNTINFO, ".* /m rw.*", "volume"
    ),
    Case("Mount.Type", mount(Type="tmpfs"), _MOUNTINFO, ".* - tmpfs .*"),
    Case("Mount.Source", mount(Type="bind", Source="/etc"), "test -e /m/passwd && echo there", "there", "bind mount"),
    Case("Mount.Target", mount(Type="bind", Source="/etc"), "test -d /m && echo there", "there", "bind mount"),
    Case(
        "Mount.ReadOnly",
        mount(Type="bind", Source="/tmp", ReadOnly=True),
        "touch /m/x 2>&1 || echo refused",
        "(?s).*Read-only.*refused",
        "bind mount",
    ),
    Case(
        "Mount.BindOptions",
        mount(Type="bind", Source="/usr", BindOptions={"Propagation": "private"}),
        _MOUNTINFO,
        r".* /m rw\S* - .*",
        "bind mount",
    ),
    Case(
        "BindOptions.CreateMountpoint",
        mount(Type="bind", Source=f"/tmp/made-{os.getpid()}", BindOptions={"CreateMountpoint": True}),
        "test -d /m && echo there",
        "there",
        "bind mount",
    ),
    Case(
        "BindOptions.NonRecursive",
        mount(Type="bind", Source="/sys", BindOptions={"NonRecursive": True}),
        "ls /m/fs/cgroup | wc -l",
        "0",
        "bind mount",
    ),
    Case(
        "BindOptions.ReadOnlyNonRecursive",
        mount(Type="bind", Source="/dev", ReadOnly=True, BindOptions={"ReadOnlyNonRecursive": True}),
        "touch /m/x 2>&1; touch /m/shm/field && rm /m/shm/field && echo below",
        "(?s).*Read-only.*below",
        "bind mount",
    ),
    Case(
        "TmpfsOptions.SizeBytes", mount(Type="tmpfs", TmpfsOptions={"SizeBytes": 2 << 20}), _MOUNTINFO, ".*size=2048k.*"
    ),
    Case("TmpfsOptions.Mode", mount(Type="tmpfs", TmpfsOptions={"Mode": 0o711}), "stat -c %a /m", "711"),
    Case("TmpfsOptions.Options", mount(Type="tmpfs", TmpfsOptions={"Options": [["noexec"]]}), _MOUNTINFO, ".*noexec.*"),
    Case("Mount.TmpfsOptions", mount(Type="tmpfs", TmpfsOptions={}), _MOUNTINFO, ".* - tmpfs .*"),
    Case(
        "Mount.VolumeOptions",
        mount(Type="volume", Source="fieldvol2", VolumeOptions={}),
        _MOUNTINFO,
        ".* /m rw.*",
        "volume",
    ),
]

KEPT = {
    "AttachStdin": True,
    "AttachStdout": True,
    "AttachStderr": True,
    "ArgsEscaped": True,
    "OnBuild": ["RUN true"],
    "Shell": ["/bin/sh", "-ec"],
    "StdinOnce": True,
    "StopSignal": "SIGINT",
    "StopTimeout": 3,
    "Labels": {"a": "b", "c": ""},
    "HostConfig.ContainerIDFile": "/tmp/id",
    "HostConfig.Annotations": {"org.example.a": "b"},
    "HostConfig.LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}},
    "HostConfig.RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "HostConfig.AutoRemove": True,
    "HostConfig.ConsoleSize": [7, 77],
    "Healthcheck.Test": ["CMD", "true"],
    "Healthcheck.Interval": 5_000_000_000,
    "Healthcheck.Timeout": 6_000_000_000,
    "Healthcheck.Retries": 4,
    "Healthcheck.StartPeriod": 7_000_000_000,
    "Healthcheck.StartInterval": 2_000_000_000,
}
"""Fields that are read by clients, or whose effect other tests show: what is kept is what was given."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "HostConfig.Cgroup": (host(Cgroup="container:x"), "Cgroup"),
    "HostConfig.CpuCount": (host(CpuCount=2), "CpuCount"),
    "HostConfig.CpuPercent": (host(CpuPercent=50), "CpuPercent"),
    "HostConfig.CpuRealtimePeriod": (host(CpuRealtimePeriod=1000), "CpuRealtimePeriod"),
    "HostConfig.CpuRealtimeRuntime": (host(CpuRealtimeRuntime=1000), "CpuRealtimeRuntime"),
    "HostConfig.DeviceRequests": (host(DeviceRequests=[{"Count": -1, "Capabilities": [["gpu"]]}]), "DeviceRequests"),
    "HostConfig.IOMaximumBandwidth": (host(IOMaximumBandwidth=1), "IOMaximumBandwidth"),
    "HostConfig.IOMaximumIOps": (host(IOMaximumIOps=1), "IOMaximumIOps"),
    "HostConfig.KernelMemoryTCP": (host(KernelMemoryTCP=1 << 20), "KernelMemoryTCP"),
    "HostConfig.UsernsMode": (host(UsernsMode="private"), "UsernsMode"),
    "HostConfig.CgroupnsMode": (host(CgroupnsMode="nonsense"), "cgroup namespace mode"),
    "HostConfig.Isolation": (host(Isolation="hyperv"), "hyperv"),
    "HostConfig.Runtime": (host(Runtime="no-such"), "no-such"),
    "HostConfig.IpcMode": (host(IpcMode="nonsense"), "IPC mode"),
    "HostConfig.PidMode": (host(PidMode="nonsense"), "PID mode"),
    "HostConfig.UTSMode": (host(UTSMode="nonsense"), "UTS mode"),
    "HostConfig.NetworkMode": (host(NetworkMode="no-such"), "no-such"),
    "HostConfig.SecurityOpt": (host(SecurityOpt=["label=type:x"]), "label"),
    "HostConfig.StorageOpt": (host(StorageOpt={"colour": "red"}), "colour"),
    "HostConfig.LogConfig": (host(LogConfig={"Type": "syslog"}), "syslog"),
    "HostConfig.LogConfig options": (host(LogConfig={"Type": "json-file", "Config": {"colour": "red"}}), "colour"),
    "HostConfig.VolumeDriver": (host(VolumeDriver="no-such", Binds=["new:/m"]), "no-such"),
    "HostConfig.Ulimits": (host(Ulimits=[{"Name": "colour", "Soft": 1, "Hard": 1}]), "colour"),
    "HostConfig.Ulimits order": (host(Ulimits=[{"Name": "nofile", "Soft": 9, "Hard": 1}]), "ulimit"),
    "HostConfig.CapAdd": (host(CapAdd=["FLY"]), "CAP_FLY"),
    "HostConfig.Sysctls": (host(Sysctls={"kernel.core_pattern": "x"}), "core_pattern"),
    "HostConfig.BlkioWeight": (host(BlkioWeight=5), "Range of blkio weight is from 10 to 1000"),
    "HostConfig.CpusetCpus": (host(CpusetCpus="0,zz"), "Invalid value 0,zz for cpuset cpus"),
    "HostConfig.CpusetCpus absent": (host(CpusetCpus="4095"), "Requested CPUs are not available"),
    "HostConfig.CpusetMems": (host(CpusetMems="4095"), "Requested memory nodes are not available"),
    "HostConfig.CpuPeriod": (host(CpuPeriod=1), "CPU cfs period can not be less than 1ms"),
    "HostConfig.CpuQuota": (host(CpuQuota=1), "CPU cfs quota can not be less than 1ms"),
    "HostConfig.CpuShares": (host(CpuShares=-1), "shares"),
    "HostConfig.NanoCpus": (host(NanoCpus=4096_000_000_000), "Range of CPUs is from 0.01"),
    "HostConfig.Memory": (host(Memory=1 << 20), "Minimum memory limit allowed is 6MB"),
    "HostConfig.MemorySwap": (
        host(MemorySwap=64 << 20),
        "You should always set the Memory limit when using Memoryswap",
    ),
    "HostConfig.MemorySwappiness": (host(MemorySwappiness=101), "valid memory swappiness"),
    "HostConfig.MemoryReservation": (
        host(Memory=32 << 20, MemoryReservation=64 << 20),
        "Minimum memory limit can not be less than memory reservation limit",
    ),
    "HostConfig.OomScoreAdj": (host(OomScoreAdj=1001), "oom score adj"),
    "HostConfig.ShmSize": (host(ShmSize=-1), "SHM size can not be less than 0"),
    "HostConfig.Tmpfs": (host(Tmpfs={"/m": "colour=red"}), "colour"),
    "HostConfig.Binds": (host(Binds=["/tmp:/m:colour"]), "invalid mode: colour"),
    "HostConfig.Links": (host(Links=["no-such:x"]), "could not get container for no-such"),
    "HostConfig.VolumesFrom": (host(VolumesFrom=["no-such"]), "no-such"),
    "HostConfig.ExtraHosts": (host(ExtraHosts=["nonsense"]), "nonsense"),
    "HostConfig.Dns": (host(Dns=["nonsense"]), "nonsense"),
    "HostConfig.PortBindings": (host(PortBindings={"80/colour": [{}]}), "colour"),
    "HostConfig.RestartPolicy": (host(RestartPolicy={"Name": "colour"}), "colour"),
    "HostConfig.Mounts": (mount(Type="colour"), "colour"),
    "Mount.Source": (mount(Type="tmpfs", Source="/x"), "field Source must not be specified"),
    "BindOptions.ReadOnlyForceRecursive": (
        mount(Type="bind", Source="/tmp", BindOptions={"ReadOnlyForceRecursive": True}),
        "!ReadOnly && BindOptions.ReadOnlyForceRecursive",
    ),
    "BindOptions.Propagation": (mount(Type="bind", Source="/tmp", BindOptions={"Propagation": "colour"}), "colour"),
    "Mount.BindOptions": (
        mount(Type="tmpfs", BindOptions={"Propagation": "private"}),
        "BindOptions must not be specified on mount type",
    ),
    "Mount.VolumeOptions": (
        mount(Type="tmpfs", VolumeOptions={"NoCopy": True}),
        "VolumeOptions must not be specified on mount type",
    ),
    "Mount.TmpfsOptions": (
        mount(Type="bind", Source="/tmp", TmpfsOptions={"SizeBytes": 1}),
        "TmpfsOptions must not be specified on mount type",
    ),
    "VolumeOptions.Subpath": (mount(Type="volume", Source="vol", VolumeOptions={"Subpath": "../x"}), "subpath"),
    "VolumeOptions.DriverConfig": (
        mount(Type="volume", Source="vol", VolumeOptions={"DriverConfig": {"Name": "no-such"}}),
        "no-such",
    ),
    "TmpfsOptions.Options": (mount(Type="tmpfs", TmpfsOptions={"Options": [["colour", "red"]]}), "colour"),
    "EndpointSettings.DriverOpts": (
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"DriverOpts": {"colour": "red"}}}}},
        "colour",
    ),
    "IPAMConfig.LinkLocalIPs": (
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"LinkLocalIPs": ["10.0.0.7"]}}}}},
        "link-local",
    ),
    "Hostname": ({"Hostname": "a b"}, "hostname"),
    "WorkingDir": ({"WorkingDir": "relative"}, "absolute path"),
    "StopSignal": ({"StopSignal": "COLOUR"}, "COLOUR"),
    "ExposedPorts": ({"ExposedPorts": {"80/colour": {}}}, "colour"),
    "Volumes": ({"Volumes": {"relative": {}}}, "absolute"),
    "Env": ({"Env": ["=x"]}, "=x"),
    "MacAddress": ({"MacAddress": "nonsense"}, "nonsense"),
    "Healthcheck.Interval": ({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 5}}, "Interval"),
    "Healthcheck.Retries": ({"Healthcheck": {"Test": ["CMD", "true"], "Retries": -1}}, "Retries"),
}
"""What is refused when it is created, or at the latest when it is started, and a word of the refusal."""


OURS = frozenset(
    """HostConfig.Cgroup HostConfig.CpuCount HostConfig.CpuPercent HostConfig.CpuRealtimePeriod HostConfig.BlkioWeight
    HostConfig.CpuRealtimeRuntime HostConfig.DeviceRequests HostConfig.IOMaximumBandwidth HostConfig.IOMaximumIOps
    HostConfig.KernelMemoryTCP HostConfig.UsernsMode HostConfig.SecurityOpt HostConfig.Ulimits HostConfig.PortBindings
    TmpfsOptions.Options EndpointSettings.DriverOpts IPAMConfig.LinkLocalIPs Hostname ExposedPorts Volumes""".split()
)
"""Fields whose refusal is bastide's own: dockerd passes over the value, or says so only in the runtime's words."""


@pytest.fixture
def api(docker: Docker) -> Api:
    return Api(docker.host)


def made(api: Api, body: dict[str, Any]) -> tuple[int, str, str]:
    """Create a container; status, id and message."""
    whole = {"Image": "busybox", **body}
    if ISOLATION:
        whole["HostConfig"] = {"Isolation": ISOLATION, **whole.get("HostConfig", {})}
    answer = api("POST", "/containers/create", whole)
    said = answer.json()
    return answer.status, said.get("Id", ""), said.get("message", "")


def output(api: Api, body: dict[str, Any], shell: str) -> str:
    """What a container of that body says when it runs that line."""
    status, name, message = made(api, {"Cmd": ["sh", "-c", shell], **body})
    assert status == 201, message
    answer = api("POST", f"/containers/{name}/start")
    assert answer.status == 204, answer.body
    api.ok("POST", f"/containers/{name}/wait")
    raw = api("GET", f"/containers/{name}/logs?stdout=1&stderr=1").body
    text = raw if body.get("Tty") else re.sub(rb"(?s)[\0-\2]\0\0\0....", b"", raw)
    return text.decode(errors="replace").replace("\r\n", "\n").strip()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.field)
def test_honoured(api: Api, case: Case) -> None:
    if case.walled and ISOLATION == "vm":
        status, _, message = made(api, case.body)
        if status != 201:
            assert (status, case.walled in message) == (501, True), message
            return
    said = output(api, case.body, case.shell)
    assert re.fullmatch(case.said, said), said


@pytest.mark.parametrize("field", KEPT)
def test_kept(api: Api, field: str) -> None:
    *path, name = field.split(".")
    body: dict[str, Any] = {name: KEPT[field]}
    if path == ["Healthcheck"]:
        body = {"Test": ["CMD", "true"], **body}
    body = {path[0]: body} if path else body
    status, identity, message = made(api, body)
    assert status == 201, message
    shown = api.ok("GET", f"/containers/{identity}/json")
    place = shown if path == ["HostConfig"] else shown["Config"]
    for step in path:
        place = place[step]
    assert place[name] == KEPT[field]


@pytest.mark.parametrize(
    "field",
    [pytest.param(name, marks=[pytest.mark.beyond] if name.partition(" ")[0] in OURS else []) for name in REFUSED],
)
def test_refused(api: Api, field: str) -> None:
    body, word = REFUSED[field]
    status, name, message = made(api, {"Cmd": ["true"], **body})
    if status == 201:
        answer = api("POST", f"/containers/{name}/start")
        status, message = answer.status, answer.json()["message"] if answer.body else "started"
    assert status in (400, 404, 409, 500, 501), message
    assert word in message


# -- what needs more than the container --------------------------------------------------------


@shows("HostConfig.AutoRemove")
def test_auto_remove(docker: Docker, api: Api) -> None:
    status, name, _ = made(api, {"Cmd": ["true"], **host(AutoRemove=True)})
    assert status == 201
    api.ok("POST", f"/containers/{name}/start")
    docker.until(lambda: api("GET", f"/containers/{name}/json").status == 404, "its removal")


@shows("StopSignal", "StopTimeout")
def test_stop_signal(docker: Docker, api: Api) -> None:
    line = "trap 'echo told; exit 0' USR1; echo ready; while :; do sleep 0.1; done"
    status, name, _ = made(api, {"Cmd": ["sh", "-c", line], "StopSignal": "SIGUSR1", "StopTimeout": 30})
    assert status == 201
    api.ok("POST", f"/containers/{name}/start")
    docker.until(lambda: b"ready" in api("GET", f"/containers/{name}/logs?stdout=1").body, "the trap")
    api.ok("POST", f"/containers/{name}/stop")
    assert b"told" in api("GET", f"/containers/{name}/logs?stdout=1").body


@pytest.mark.shared_kernel
@shows("HostConfig.VolumesFrom", "VolumeOptions.Labels", "VolumeOptions.DriverConfig", "HostConfig.Mounts")
def test_volumes_from(docker: Docker, api: Api) -> None:
    options = {"Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}}
    status, name, message = made(api, mount(Type="volume", Source="given", VolumeOptions=options))
    assert status == 201, message
    volume = api.ok("GET", "/volumes/given")
    assert (volume["Labels"], volume["Options"]) == ({"a": "b"}, {"type": "tmpfs", "device": "tmpfs"})
    assert re.fullmatch(".* /m ro.* - tmpfs .*", output(api, host(VolumesFrom=[f"{name}:ro"]), _MOUNTINFO))


@pytest.mark.shared_kernel
@shows("VolumeOptions.NoCopy", "VolumeOptions.Subpath")
def test_parts_of_volumes(docker: Docker, api: Api) -> None:
    there = {"Target": "/var/www", "Type": "volume", "Source": "bare", "VolumeOptions": {"NoCopy": True}}
    assert output(api, host(Mounts=[there]), "ls /var/www; mkdir /var/www/sub; touch /var/www/sub/x") == ""
    part = mount(Type="volume", Source="bare", VolumeOptions={"Subpath": "sub"})
    if PEER != "dockerd":  # since API 1.45 with the fields that 26.1 knows
        assert output(api, part, "ls /m") == "x"


@shows("Mount.Consistency")
def test_consistency_is_kept(docker: Docker, api: Api) -> None:
    status, name, message = made(api, mount(Type="tmpfs", Consistency="cached"))
    assert status == 201, message
    assert api.ok("GET", f"/containers/{name}/json")["HostConfig"]["Mounts"][0]["Consistency"] == "cached"


@shows("HostConfig.PublishAllPorts", "HostConfig.PortBindings", "ExposedPorts")
def test_ports(docker: Docker, api: Api) -> None:
    bindings = {"90/udp": [{"HostIp": "127.0.0.1", "HostPort": "38480-38489"}]}
    body = {
        "Cmd": ["sleep", "100"],
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}},
        **host(PublishAllPorts=True, PortBindings=bindings),
    }
    status, name, message = made(api, body)
    assert status == 201, message
    api.ok("POST", f"/containers/{name}/start")
    ports = api.ok("GET", f"/containers/{name}/json")["NetworkSettings"]["Ports"]
    assert ports["80/tcp"][0]["HostPort"].isdigit()
    assert 38480 <= int(ports["90/udp"][0]["HostPort"]) <= 38489


@shows("HostConfig.Links")
def test_links_of_the_default_network(docker: Docker, api: Api) -> None:
    docker("run", "-d", "--name", "far", "-h", "farther", "busybox", "sleep", "100")
    address = docker.field("far", "{{.NetworkSettings.IPAddress}}")
    said = output(api, host(Links=["far:near"]), "grep near /etc/hosts; ping -c1 -W5 near | head -n1")
    assert said.split()[0] == address
    assert {"near", "far", "farther"} <= set(said.splitlines()[0].split())
    assert f"({address})" in said


@shows(
    "EndpointSettings.IPAMConfig",
    "IPAMConfig.IPv4Address",
    "IPAMConfig.IPv6Address",
    "EndpointSettings.Aliases",
    "EndpointSettings.MacAddress",
    "EndpointSettings.Links",
    "IPAMConfig.LinkLocalIPs",
)
def test_endpoints(docker: Docker, api: Api) -> None:
    docker("network", "create", "--ipv6", "--subnet", "10.110.7.0/24", "--subnet", "fd00:7::/64", "net")
    docker("run", "-d", "--name", "far", "--network", "net", "busybox", "sleep", "100")
    asked = {
        "IPAMConfig": {
            "IPv4Address": "10.110.7.77",
            "IPv6Address": "fd00:7::77",
            "LinkLocalIPs": ["169.254.7.7"],
        },
        "MacAddress": "02:42:00:00:00:78",
        "Aliases": ["nick"],
        "Links": ["far:near"],
    }
    body = {**host(NetworkMode="net"), "NetworkingConfig": {"EndpointsConfig": {"net": asked}}}
    line = "ip addr show eth0; ping -4 -c1 -W5 nick | head -n1; ping -4 -c1 -W5 near | head -n1"
    said = output(api, body, line)
    for word in ("10.110.7.77/24", "fd00:7::77/64", "02:42:00:00:00:78", "(10.110.7.77)", "169.254.7.7/16"):
        assert word in said, said
    assert f"({docker.field('far', '{{.NetworkSettings.Networks.net.IPAddress}}')})" in said


@pytest.mark.shared_kernel
@pytest.mark.beyond
@shows("HostConfig.StorageOpt")
def test_the_root_has_a_size(docker: Docker, api: Api) -> None:
    status, name, message = made(api, {"Cmd": ["true"], **host(StorageOpt={"size": "1g"})})
    assert status == 201 or (status == 501 and "size" in message), message
    if status == 201:
        assert api("POST", f"/containers/{name}/start").status == 204


@pytest.mark.shared_kernel
@shows("HostConfig.MemorySwappiness", "HostConfig.OomKillDisable")
def test_what_only_cgroup_v1_has(docker: Docker, api: Api) -> None:
    body = {"Cmd": ["sleep", "1"], **host(Memory=64 << 20, MemorySwappiness=7, OomKillDisable=True)}
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        if PEER != "dockerd":
            status, _, message = made(api, body)
            assert (status, "MemorySwappiness" in message) == (501, True)
        return
    said = output(api, host(Memory=64 << 20, MemorySwappiness=7), "cat /sys/fs/cgroup/memory/memory.swappiness")
    assert said == "7"
    said = output(api, host(Memory=64 << 20, OomKillDisable=True), "cat /sys/fs/cgroup/memory/memory.oom_control")
    assert "oom_kill_disable 1" in said


@pytest.mark.shared_kernel
@pytest.mark.parametrize("name", ["ReadBps", "WriteBps", "ReadIOps", "WriteIOps"])
@shows(*(f"HostConfig.BlkioDevice{name}" for name in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")))
def test_throttles(docker: Docker, api: Api, name: str) -> None:
    device = next(path for path in (Path("/dev", each.name) for each in Path("/sys/block").iterdir()) if path.exists())
    kind, unit = re.findall("[A-Z][a-z]+|IOps", name)
    v1 = f"blkio/blkio.throttle.{kind.lower()}_{unit.lower()}_device"
    said = output(api, host(**{f"BlkioDevice{name}": [{"Path": str(device), "Rate": 1 << 20}]}), group(v1, "io.max"))
    assert str(1 << 20) in said
    status, identity, message = made(
        api, {"Cmd": ["true"], **host(**{f"BlkioDevice{name}": [{"Path": "/dev/null", "Rate": 1}]})}
    )
    if status == 201:
        message = str(api("POST", f"/containers/{identity}/start").body)
    assert "/dev/null" in message or PEER == "dockerd"


@pytest.mark.beyond
@shows("HostConfig.BlkioWeightDevice")
def test_weights_of_devices_are_in_range(docker: Docker, api: Api) -> None:
    status, _, message = made(api, host(BlkioWeightDevice=[{"Path": "/dev/null", "Weight": 5}]))
    assert (status, message) == (400, "Range of blkio weight is from 10 to 1000")


def test_every_field_is_shown() -> None:
    """Nothing that Docker publishes is left out."""
    tested = SHOWN | {case.field for case in CASES} | KEPT.keys() | {name.partition(" ")[0] for name in REFUSED}
    prefixes = {"": "", **{kind: f"{kind}." for kind in PUBLISHED if kind}}
    published = {prefixes[kind] + name for kind, names in PUBLISHED.items() for name in names.split()}
    assert published - tested == {"Healthcheck"}  # by its own fields, and test_cli_run's test_health

"""What the daemon is and runs on, in the shape of the Docker Engine API 1.47 (`SystemInfo`, `SystemVersion`)."""

from __future__ import annotations

import os
import platform
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bastide
from bastide import network, runtime
from bastide.engine.clock import now
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.container import Status

if TYPE_CHECKING:
    from bastide.engine.engine import Engine

API_VERSION, MIN_API_VERSION = "1.47", "1.24"
INDEX = "https://index.docker.io/v1/"
LOG_DRIVERS = ("json-file", "local", "journald", "none")

# Go's names of architectures (GOARCH) by those of uname(2).
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

_LIMITS_V1 = {
    "MemoryLimit": "memory/memory.limit_in_bytes",
    "SwapLimit": "memory/memory.memsw.limit_in_bytes",
    "OomKillDisable": "memory/memory.oom_control",
    "CpuCfsPeriod": "cpu/cpu.cfs_period_us",
    "CpuCfsQuota": "cpu/cpu.cfs_quota_us",
    "CPUShares": "cpu/cpu.shares",
    "CPUSet": "cpuset/cpuset.cpus",
    "PidsLimit": "pids",
}
_LIMITS_V2 = {
    "MemoryLimit": "memory",
    "SwapLimit": "memory",
    "CpuCfsPeriod": "cpu",
    "CpuCfsQuota": "cpu",
    "CPUShares": "cpu",
    "CPUSet": "cpuset",
    "PidsLimit": "pids",
}
_WARNINGS = {
    "MemoryLimit": "WARNING: No memory limit support",
    "SwapLimit": "WARNING: No swap limit support",
    "CpuCfsQuota": "WARNING: No cpu cfs quota support",
    "CPUShares": "WARNING: No cpu shares support",
    "CPUSet": "WARNING: No cpuset support",
}
_CGROUP = Path("/sys/fs/cgroup")


class HostFacts:
    """What does not change while the daemon runs; read once. Construct it off the event loop."""

    def __init__(self) -> None:
        self.kernel = platform.release()
        self.machine = platform.machine()
        release = _os_release()
        self.system = release.get("PRETTY_NAME", "Linux")
        self.system_version = release.get("VERSION_ID", "")
        self.memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.cgroup_version = "2" if (_CGROUP / "cgroup.controllers").exists() else "1"
        self.limits = _limits(self.cgroup_version)

    @property
    def architecture(self) -> str:
        """Go's name."""
        return ARCHITECTURES.get(self.machine, self.machine)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _limits(cgroup_version: str) -> dict[str, bool]:
    """Which limits the kernel's cgroups offer."""
    if cgroup_version == "2":
        controllers = (_CGROUP / "cgroup.controllers").read_text().split()
        found = {name: controller in controllers for name, controller in _LIMITS_V2.items()}
        return {**found, "OomKillDisable": False}
    return {name: (_CGROUP / path).exists() for name, path in _LIMITS_V1.items()}


class System:
    """The daemon's own noun."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings, self._engine = settings, engine
        self._facts: HostFacts | None = None

    async def facts(self) -> HostFacts:
        """The host's facts."""
        if self._facts is None:
            self._facts = await blocking(HostFacts)
        return self._facts

    @cached_property
    def id(self) -> str:
        """This daemon's id: made once and kept in the data root."""
        path = self._settings.data_root / "engine-id"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            made = str(uuid.uuid4())
            path.write_text(f"{made}\n")
            return made

    async def version(self) -> dict[str, Any]:
        """Versions of the daemon, of the API and of the programs it works with."""
        facts = await self.facts()
        details = {
            "ApiVersion": API_VERSION,
            "Arch": facts.architecture,
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": "",
            "GoVersion": "",
            "KernelVersion": facts.kernel,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
        }
        components: list[dict[str, Any]] = [{"Name": "Engine", "Version": bastide.__version__, "Details": details}]
        for name, probe in (await self._engine.backends.probe()).items():
            if probe.usable:
                components.append({"Name": name, "Version": probe.version, "Details": {"Path": probe.path}})
        return {
            "Platform": {"Name": "bastide"},
            "Components": components,
            "Version": bastide.__version__,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": facts.architecture,
            "KernelVersion": facts.kernel,
            "BuildTime": "",
        }

    async def info(self) -> dict[str, Any]:
        """What the daemon is, what it holds and what it runs on."""
        facts = await self.facts()
        return {
            "ID": self.id,
            **self._counts(),
            **facts.limits,
            **(await self._runtimes()),
            "Driver": "overlay",
            "DriverStatus": [["Backing Filesystem", "overlayfs"]],
            "Plugins": {
                "Volume": ["local"],
                "Network": list(network.drivers()),
                "Authorization": None,
                "Log": list(LOG_DRIVERS),
            },
            "KernelMemoryTCP": False,
            "IPv4Forwarding": True,
            "BridgeNfIptables": False,
            "BridgeNfIp6tables": False,
            "Debug": self._engine.settings.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": 0,
            "SystemTime": now(),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": facts.cgroup_version,
            "NEventsListener": self._engine.events.listeners,
            "KernelVersion": facts.kernel,
            "OperatingSystem": facts.system,
            "OSVersion": facts.system_version,
            "OSType": "linux",
            "Architecture": facts.machine,
            "IndexServerAddress": INDEX,
            "RegistryConfig": {
                "IndexConfigs": {"docker.io": {"Mirrors": [], "Name": "docker.io", "Official": True, "Secure": True}},
                "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
                "Mirrors": [],
                "AllowNondistributableArtifactsCIDRs": None,
                "AllowNondistributableArtifactsHostnames": None,
            },
            "NCPU": os.cpu_count() or 1,
            "MemTotal": facts.memory,
            "GenericResources": None,
            "DockerRootDir": str(self._settings.data_root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": platform.node(),
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": bastide.__version__,
            "LiveRestoreEnabled": True,
            "Swarm": _NO_SWARM,
            "Isolation": "",
            "InitBinary": "",
            "ContainerdCommit": _NO_COMMIT,
            "RuncCommit": _NO_COMMIT,
            "InitCommit": _NO_COMMIT,
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
            "DefaultAddressPools": [{"Base": pool, "Size": 24} for pool in self._settings.address_pools],
            "CDISpecDirs": [],
            "Warnings": [text for name, text in _WARNINGS.items() if not facts.limits.get(name)] or None,
        }

    def _counts(self) -> dict[str, int]:
        states = [container.state.status for container in self._engine.containers.list()]
        running = sum(status in (Status.RUNNING, Status.RESTARTING) for status in states)
        paused = states.count(Status.PAUSED)
        return {
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(self._engine.images.list()),
        }

    async def _runtimes(self) -> dict[str, Any]:
        """The runtimes that work here, with the wall that each one is."""
        usable = {
            name: {
                "path": probe.path or name,
                "status": {"bastide.isolation": str(runtime.load(name).isolation), "version": probe.version}
                | self._pool(name),
            }
            for name, probe in (await self._engine.backends.probe()).items()
            if probe.usable
        }
        default = self._settings.runtime or next(iter(usable), "")
        return {"Runtimes": usable, "DefaultRuntime": default}

    def _pool(self, name: str) -> dict[str, str]:
        """What waits behind a runtime that has a pool, in one line."""
        found = self._engine.backends.runtime(name)
        if runtime.Feature.POOL not in found.features or not isinstance(found, runtime.Pooling):
            return {}
        state = found.pool()
        used = f"{state.used >> 20} of {state.limit >> 20} MiB used"
        return {"bastide.pool": f"off: {state.reason}" if state.reason else used}


_NO_COMMIT = {"ID": "", "Expected": ""}
_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}

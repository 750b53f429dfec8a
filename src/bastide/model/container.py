"""What a container is asked to be (Config, HostConfig) and what it is (State, Container).

Fields and their meaning: the Docker Engine API 1.47, `ContainerCreate` and `ContainerInspect`.
Sizes are bytes, durations nanoseconds unless the name says otherwise, times RFC 3339 in UTC.
A list or map that a client may send as `null` is `| None`.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from bastide.model.network import EndpointSettings, PortBinding
from bastide.model.wire import Wire

NEVER = "0001-01-01T00:00:00Z"


class Isolation(enum.StrEnum):
    """The wall around a container."""

    CONTAINER = "container"
    GVISOR = "gvisor"
    VM = "vm"


class Status(enum.StrEnum):
    """Where a container is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class HealthConfig(Wire, frozen=True, kw_only=True):
    """A health check. `test` is `[]` (inherit), `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class Config(Wire, frozen=True, kw_only=True):
    """The part of a container that does not depend on the host."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool | None = None
    mac_address: str | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: list[str] | None = None


class RestartPolicy(Wire, frozen=True, kw_only=True):
    """`name` is "", `no`, `always`, `unless-stopped` or `on-failure`."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Wire, frozen=True, kw_only=True):
    """A log driver and its options."""

    type: str = ""
    config: dict[str, str] | None = None


class DeviceMapping(Wire, frozen=True, kw_only=True):
    """A host device in the container; permissions are of the letters `rwm`."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Wire, frozen=True, kw_only=True):
    """Devices by driver and capability (GPUs)."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Ulimit(Wire, frozen=True, kw_only=True):
    """A resource limit of the process."""

    name: str
    soft: int = 0
    hard: int = 0


class WeightDevice(Wire, frozen=True, kw_only=True):
    """Relative block I/O weight (10 to 1000) of a device."""

    path: str
    weight: int = 0


class ThrottleDevice(Wire, frozen=True, kw_only=True):
    """Block I/O limit of a device, bytes or operations a second."""

    path: str
    rate: int = 0


class DriverConfig(Wire, frozen=True, kw_only=True):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] | None = None


class BindOptions(Wire, frozen=True, kw_only=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Wire, frozen=True, kw_only=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Wire, frozen=True, kw_only=True):
    """Options of a tmpfs mount; size in bytes, mode as an integer."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class Mount(Wire, frozen=True, kw_only=True):
    """A mount as asked for: type `bind`, `volume`, `tmpfs` (others are refused by name)."""

    target: str = ""
    source: str = ""
    type: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(Wire, frozen=True, kw_only=True):
    """The part of a container that depends on the host."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[Mount] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory_tcp: int = msgspec.field(name="KernelMemoryTCP", default=0)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    init: bool | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class HealthResult(Wire, frozen=True, kw_only=True):
    """One run of a health check."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(Wire, frozen=True, kw_only=True):
    """`status` is `none`, `starting`, `healthy` or `unhealthy`."""

    status: str
    failing_streak: int = 0
    log: list[HealthResult] = []


class State(Wire, frozen=True, kw_only=True):
    """What a container is doing now. `pid` is the host's, 0 when nothing runs."""

    status: Status = Status.CREATED
    pid: int = 0
    oom_killed: bool = False
    exit_code: int = 0
    error: str = ""
    started_at: str = NEVER
    finished_at: str = NEVER
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Whether a process exists behind the wall (paused and restarting containers count, as in Docker)."""
        return self.status in (Status.RUNNING, Status.PAUSED)


class MountPoint(Wire, frozen=True, kw_only=True):
    """A mount as it was resolved. `source` is the host's path, `name` the volume's."""

    type: str
    name: str = ""
    source: str = ""
    destination: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""


class Container(Wire, frozen=True, kw_only=True):
    """A container as the engine keeps it: the one record of it in the state store.

    `id` 64 hex digits; `name` without the leading slash; `image_id` `sha256:…`, the config's digest;
    `layers` the image's diff ids, lowest first; `platform`, `architecture` and `variant` are what the image's
    programs are for (operating system and Go's names); `path` and `args` what the process is.
    """

    id: str
    name: str
    created: str
    config: Config
    host_config: HostConfig
    image_id: str
    image_ref: str
    layers: list[str]
    isolation: Isolation
    runtime: str
    snapshotter: str
    platform: str
    architecture: str = ""
    variant: str = ""
    path: str
    args: list[str]
    state: State = State()
    mounts: list[MountPoint] = []
    networks: dict[str, EndpointSettings] = {}
    ports: dict[str, list[PortBinding] | None] = {}
    restart_count: int = 0
    manually_stopped: bool = False
    log_path: str = ""
    generation: int = 0

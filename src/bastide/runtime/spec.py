"""The OCI runtime-spec configuration of a container: what Docker would make of the same HostConfig.

Source: the OCI runtime-spec 1.0 (config.md, config-linux.md) and Docker's defaults (moby daemon/pkg/oci).
Nothing here touches the host but to look users up in the container's root and devices up in /dev.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bastide.host import capabilities, cgroups
from bastide.host.paths import root_of
from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.process import Bundle, DirectoryRoot, Mount, Process, Struct
from bastide.runtime import filters, limits, seccomp, sysctls, users

VERSION = "1.0.2"
INIT_TARGET = "/sbin/docker-init"
"""Where the packaged init appears in a container that asked for one."""
_SHM_SIZE = 64 << 20
_UNLIMITED = (1 << 64) - 1

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""Paths of /proc and /sys that are hidden, and those that cannot be written: moby oci/defaults.go."""

_NAMESPACES = {"pid": "pid", "network": "network", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
_SHARED = ("shared", "rshared")
_FOLLOWING = ("slave", "rslave")


class Host(Struct, frozen=True, kw_only=True):
    """What this host allows; found once."""

    capabilities: frozenset[str]
    open_files: int
    """The hard RLIMIT_NOFILE, as an example of all limits: they may not be raised without CAP_SYS_RESOURCE."""
    unified: bool

    @classmethod
    def detect(cls) -> Host:
        """Ask the kernel."""
        return cls(
            capabilities=capabilities.bounding(),
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            unified=cgroups.unified(),
        )


class Security(Struct, frozen=True, kw_only=True):
    """`HostConfig.SecurityOpt`, taken apart. `seccomp`: `""` the default, `unconfined`, or a profile's JSON."""

    seccomp: str = ""
    apparmor: str = ""
    label: str = ""
    unmasked: bool = False
    writable_cgroups: bool = False


def security(options: Iterable[str]) -> Security:
    """Take the options apart. Raises InvalidArgument in Docker's words for what is unknown."""
    found: dict[str, Any] = {}
    for option in options:
        key, mark, value = option.partition("=")
        if not mark:
            key, mark, value = option.partition(":")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            continue
        if key == "seccomp" and value:
            found["seccomp"] = "" if value == "builtin" else value
        elif key == "apparmor" and value:
            found["apparmor"] = value
        elif key == "label" and value:
            found["label"] = "" if value == "disable" else value
        elif key == "systempaths" and value == "unconfined":
            found["unmasked"] = True
        elif key == "writable-cgroups" and value in ("true", "false"):
            found["writable_cgroups"] = value == "true"
        else:
            raise InvalidArgument(f"invalid --security-opt 2: {option!r}")
    if found.get("label"):
        raise Unsupported(f"security option label={found['label']}: SELinux labels are not supported")
    return Security(**found)


def build(bundle: Bundle, host: Host, *, compiled: bool = False, read_only: str = "rro") -> bytes:
    """`config.json` of a container. `compiled`: the runtime takes filters that are programs already;
    `read_only`: its word for a bind that is so all the way down.

    Raises InvalidArgument, Unsupported.
    """
    wanted = bundle.host_config
    if not isinstance(bundle.root, DirectoryRoot):
        raise Unsupported("this runtime needs a root that is a directory on the host")
    if wanted.device_requests:
        raise Unsupported("device requests (GPUs) are not supported: name the devices with --device")
    options = security(wanted.security_opt or [])
    hostname = {} if bundle.namespaces.get("uts") else {"hostname": bundle.hostname}
    config: dict[str, Any] = {
        "ociVersion": VERSION,
        "process": process(bundle.process, bundle.root.path, host, wanted, options),
        "root": {"path": str(bundle.root.path), "readonly": wanted.readonly_rootfs},
        **hostname,
        "mounts": _mounts(bundle, options, read_only),
        "linux": _linux(bundle, host, options),
    }
    annotations = dict(bundle.annotations)
    if filters.ANNOTATION in annotations:
        raise InvalidArgument(f"annotation {filters.ANNOTATION} is not allowed: use --security-opt seccomp=FILE")
    if compiled and config["linux"].get("seccomp") is not None and not options.seccomp:
        program = filters.compiled(_held(bundle, host))
        if program is not None:
            annotations[filters.ANNOTATION] = program
            config["linux"]["seccomp"] = filters.CLOSED
    if wanted.init:
        config["process"]["args"] = [INIT_TARGET, "--", *config["process"]["args"]]
    if annotations:
        config["annotations"] = annotations
    return msgspec.json.encode(config)


# -- the process -------------------------------------------------------------------------------------


def process(
    wanted: Process, root: Path, host: Host, host_config: HostConfig | None = None, options: Security | None = None
) -> dict[str, Any]:
    """The runtime-spec's `process`; also what `exec` is given. `root` is where its users are looked up."""
    if not wanted.args or not wanted.args[0]:
        raise InvalidArgument("no command specified")
    with root_of(root) as tree:
        identity = users.resolve(tree, wanted.user, wanted.groups)
    held = [name for name in wanted.capabilities if name in host.capabilities]
    effective = held if identity.uid == 0 else []
    section: dict[str, Any] = {
        "terminal": wanted.terminal,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)},
        "args": list(wanted.args),
        "env": [*wanted.env, *_home(wanted, identity)],
        "cwd": wanted.cwd or "/",
        "capabilities": {"bounding": held, "effective": effective, "permitted": effective},
        "noNewPrivileges": wanted.no_new_privileges,
        "rlimits": [_rlimit(*limit, host) for limit in wanted.rlimits],
    }
    if wanted.terminal and wanted.size:
        section["consoleSize"] = {"height": wanted.size.rows, "width": wanted.size.columns}
    if host_config and host_config.oom_score_adj:
        section["oomScoreAdj"] = host_config.oom_score_adj
    if options and options.apparmor and options.apparmor != "unconfined":
        section["apparmorProfile"] = options.apparmor
    return section


def _home(wanted: Process, identity: users.Identity) -> list[str]:
    """HOME from the image's passwd file, unless it was given."""
    if any(entry.startswith("HOME=") for entry in wanted.env):
        return []
    return [f"HOME={identity.home or '/'}"]


def _rlimit(kind: str, soft: int, hard: int, host: Host) -> dict[str, Any]:
    """A limit, lowered to what may be set here where we may not raise it."""
    number = getattr(resource, kind, None)
    if number is None:
        raise InvalidArgument(f"invalid ulimit type: {kind.removeprefix('RLIMIT_').lower()}")
    top = _UNLIMITED
    if "CAP_SYS_RESOURCE" not in host.capabilities:
        allowed = host.open_files if kind == "RLIMIT_NOFILE" else resource.getrlimit(number)[1]
        top = _UNLIMITED if allowed == resource.RLIM_INFINITY else allowed
    hard = min(_UNLIMITED if hard < 0 else hard, top)
    return {"type": kind, "soft": min(_UNLIMITED if soft < 0 else soft, hard), "hard": hard}


# -- mounts ------------------------------------------------------------------------------------------


def _mounts(bundle: Bundle, options: Security, read_only: str) -> list[dict[str, Any]]:
    wanted = bundle.host_config
    own = {mount.target for mount in bundle.mounts}
    entries = [entry for entry in _basic(bundle, options) if entry["destination"] not in own]
    for target, source in (
        ("/etc/resolv.conf", bundle.resolv_conf),
        ("/etc/hostname", bundle.hostname_file),
        ("/etc/hosts", bundle.hosts),
    ):
        if source is not None and target not in own:
            words = ["bind", "rprivate", *(["ro"] if wanted.readonly_rootfs else [])]
            entries.append({"destination": target, "type": "bind", "source": str(source), "options": words})
    return entries + [_mount(mount, read_only) for mount in bundle.mounts]


def _basic(bundle: Bundle, options: Security) -> list[dict[str, Any]]:
    """The file systems of the kernel that every container has."""
    wanted = bundle.host_config
    writable = wanted.privileged
    system = ["nosuid", "noexec", "nodev"]
    groups = [*system, "relatime", *([] if writable or options.writable_cgroups else ["ro"])]
    size = wanted.shm_size or _SHM_SIZE
    entries = [
        _entry("/proc", "proc", system),
        _entry("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _entry("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _entry("/sys", "sysfs", [*system, *([] if writable else ["ro"])]),
        _entry("/sys/fs/cgroup", "cgroup", groups),
        _entry("/dev/mqueue", "mqueue", system),
    ]
    if "ipc" not in bundle.namespaces and wanted.ipc_mode != "none":
        entries.append(_entry("/dev/shm", "tmpfs", [*system, "mode=1777", f"size={size}"], "shm"))
    return entries


def _entry(target: str, kind: str, words: list[str], source: str = "") -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": words}


def _mount(mount: Mount, read_only: str) -> dict[str, Any]:
    words = list(mount.options)
    if mount.kind == "tmpfs":
        return _entry(mount.target, "tmpfs", [*words, *(["ro"] if mount.read_only else [])])
    if not {"bind", "rbind"} & set(words):
        words.append("rbind")
    if mount.read_only:
        # Recursive, as Docker does since 25: what is mounted below the source is read-only too.
        # Nothing is below a file, and crun 1.8 expects a directory then.
        deep = "rbind" in words and "ro-non-recursive" not in words and not _is_file(mount.source)
        words.append(read_only if deep else "ro")
    words = [word for word in words if word != "ro-non-recursive"]
    propagation = mount.propagation or "rprivate"
    # An `r` in front would make crun bind what is mounted below as well.
    words.append(propagation if "rbind" in words else propagation.removeprefix("r"))
    return {"destination": mount.target, "type": "bind", "source": str(mount.source), "options": words}


def _is_file(source: Path | None) -> bool:
    return source is not None and source.exists() and not source.is_dir()


# -- linux -------------------------------------------------------------------------------------------


def _linux(bundle: Bundle, host: Host, options: Security) -> dict[str, Any]:
    wanted = bundle.host_config
    nodes, rules = limits.devices(wanted.devices or [])
    rules += limits.custom_rules(wanted.device_cgroup_rules or [])
    section: dict[str, Any] = {
        "cgroupsPath": bundle.cgroup_path,
        "namespaces": _namespaces(bundle, host),
        "resources": limits.resources(wanted, rules),
        "sysctl": sysctls.settings(wanted, bundle),
    }
    if bundle.domainname and not bundle.namespaces.get("uts"):
        # The specification has a field for it, which runc before 1.2 does not know.
        section["sysctl"]["kernel.domainname"] = bundle.domainname
    if wanted.privileged:
        known = {node["path"] for node in nodes}
        section["devices"] = nodes + [node for node in limits.all_devices() if node["path"] not in known]
    else:
        section["devices"] = nodes
    if not (wanted.privileged or options.unmasked):
        section["maskedPaths"] = list(MASKED if wanted.masked_paths is None else wanted.masked_paths)
        section["readonlyPaths"] = list(READ_ONLY if wanted.readonly_paths is None else wanted.readonly_paths)
    propagation = _root_propagation(bundle.mounts)
    if propagation:
        section["rootfsPropagation"] = propagation
    chosen = _filter(bundle, host, options)
    if chosen is not None:
        section["seccomp"] = chosen
    return section


def _held(bundle: Bundle, host: Host) -> list[str]:
    return [name for name in bundle.process.capabilities if name in host.capabilities]


def _filter(bundle: Bundle, host: Host, options: Security) -> msgspec.Raw | dict[str, Any] | None:
    if options.seccomp == "unconfined" or (bundle.host_config.privileged and not options.seccomp):
        return None
    held = _held(bundle, host)
    return seccomp.custom(options.seccomp, held) if options.seccomp else seccomp.default(held)


def _namespaces(bundle: Bundle, host: Host) -> list[dict[str, str]]:
    """A new one of each kind unless it is shared; `host` shares by leaving the kind out."""
    shared = dict(bundle.namespaces)
    if bundle.networking.host:
        shared["network"] = "host"
    elif bundle.networking.namespace is not None:
        shared["network"] = str(bundle.networking.namespace)
    if not bundle.host_config.cgroupns_mode and (bundle.host_config.privileged or not host.unified):
        # Docker's default: private on v2, the host's on v1 and for privileged containers.
        shared.setdefault("cgroup", "host")
    if shared.get("user", "host") != "host":
        raise Unsupported("sharing a user namespace is not supported")
    result = [{"type": "mount"}]
    for kind, name in _NAMESPACES.items():
        path = shared.get(kind, "")
        if path != "host":
            result.append({"type": name, "path": path} if path else {"type": name})
    return result


def _root_propagation(mounts: Iterable[Mount]) -> str:
    """Mounts can only come in from the host where the root lets them."""
    asked = {mount.propagation for mount in mounts}
    if asked & set(_SHARED):
        return "shared"
    return "rslave" if asked & set(_FOLLOWING) else ""

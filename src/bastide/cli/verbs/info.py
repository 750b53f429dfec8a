"""`bastide info`."""

from __future__ import annotations

from bastide import __version__
from bastide.cli.grammar import Command, Options
from bastide.cli.show import table, text, units
from bastide.cli.verbs.formats import SHORT_FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client, Object

# Lines between the parts that need more than a look-up: title, key.
_HOST = (
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
)


def info(client: Client, options: Options) -> int:
    """Show what the daemon is and what it runs on."""
    facts = client.system.info()
    facts["ClientInfo"] = {
        "Version": __version__,
        "Context": "default",
        "Debug": False,
        "Plugins": [],
        "Warnings": None,
    }
    form = options.text("format")
    if form:
        text.out_made_safe(table.each("{{json .}}" if form == "json" else form, [facts])[0])
        return 0
    lines = ["Client:", f" Version:    {__version__}", " Debug Mode: false", "", "Server:"]
    lines += [*_counts(facts), *_storage(facts), *_runtimes(facts), *_security(facts), *_host(facts)]
    text.out("\n".join(lines) + "\n")
    for warning in facts.get("Warnings") or []:
        text.err(text.one_line(warning))
    return 0


def _counts(facts: Object) -> list[str]:
    return [
        f" Containers: {facts['Containers']}",
        f"  Running: {facts['ContainersRunning']}",
        f"  Paused: {facts['ContainersPaused']}",
        f"  Stopped: {facts['ContainersStopped']}",
        f" Images: {facts['Images']}",
        f" Server Version: {facts['ServerVersion']}",
    ]


def _storage(facts: Object) -> list[str]:
    lines = [f" Storage Driver: {facts['Driver']}"]
    lines += [f"  {name}: {value}" for name, value in facts.get("DriverStatus") or []]
    for title, key in (
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ):
        if facts.get(key):
            lines.append(f" {title}: {facts[key]}")
    plugins = facts.get("Plugins") or {}
    lines.append(" Plugins:")
    for kind in ("Volume", "Network", "Log"):
        lines.append(f"  {kind}: {' '.join(plugins.get(kind) or [])}")
    return lines


def _runtimes(facts: Object) -> list[str]:
    lines = [f" Swarm: {(facts.get('Swarm') or {}).get('LocalNodeState') or 'inactive'}"]
    if facts.get("Runtimes"):
        lines.append(f" Runtimes: {' '.join(sorted(facts['Runtimes']))}")
        lines.append(f" Default Runtime: {facts.get('DefaultRuntime', '')}")
        pools = [(each.get("status") or {}).get("bastide.pool") for each in facts["Runtimes"].values()]
        lines += [f" Warm VMs: {text.one_line(str(pool))}" for pool in pools if pool]
    if facts.get("InitBinary"):
        lines.append(f" Init Binary: {facts['InitBinary']}")
    for name, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        if facts.get(key):
            lines.append(f" {name} version: {facts[key].get('ID', '')}")
    return lines


def _security(facts: Object) -> list[str]:
    options = facts.get("SecurityOptions") or []
    lines = [" Security Options:"] if options else []
    for option in options:
        for pair in option.split(","):
            key, _, value = pair.partition("=")
            lines.append(f"  {value}" if key == "name" else f"   {key.capitalize()}: {value}")
    return lines


def _host(facts: Object) -> list[str]:
    lines = [f" {title}: {facts[key]}" for title, key in _HOST if key in facts]
    lines.append(f" Total Memory: {units.binary_size(facts.get('MemTotal') or 0)}")
    lines.append(f" Name: {facts.get('Name', '')}")
    for title, key in (("ID", "ID"), ("Docker Root Dir", "DockerRootDir")):
        lines.append(f" {title}: {facts.get(key, '')}")
    lines.append(f" Debug Mode: {str(bool(facts.get('Debug'))).lower()}")
    for title, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        if facts.get(key):
            lines.append(f" {title}: {facts[key]}")
    lines += [" Labels:", *(f"  {label}" for label in facts["Labels"])] if facts.get("Labels") else []
    lines.append(f" Experimental: {str(bool(facts.get('ExperimentalBuild'))).lower()}")
    registries = (facts.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or []
    lines += [" Insecure Registries:", *(f"  {entry}" for entry in registries)] if registries else []
    lines.append(f" Live Restore Enabled: {str(bool(facts.get('LiveRestoreEnabled'))).lower()}")
    return lines


COMMAND = Command(
    info,
    "[OPTIONS]",
    (SHORT_FORMAT,),
    0,
    0,
    examples=(("info -f '{{.Driver}}'", "one fact"),),
)

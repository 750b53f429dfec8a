"""From the flags of `run` and `create` to the body of the API's `ContainerCreate`."""

from __future__ import annotations

from bastide.cli.grammar import Options, UsageError
from bastide.cli.options.flags import CONFIG, HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Object

_NETWORK = ("network", "net", "network-alias", "net-alias", "ip", "ip6", "link", "link-local-ip")
_PORTS = ("publish", "expose")
_MOUNTS = ("mount", "volume", "tmpfs")
_DEVICES = (
    "blkio-weight-device",
    "device",
    "device-read-bps",
    "device-read-iops",
    "device-write-bps",
    "device-write-iops",
)
_HEALTH = (
    "health-cmd",
    "health-interval",
    "health-retries",
    "health-start-interval",
    "health-start-period",
    "health-timeout",
    "no-healthcheck",
)
_MAPS = {"annotation": "Annotations", "storage-opt": "StorageOpt", "sysctl": "Sysctls"}


def body(options: Options, attached: tuple[str, ...] = ("stdout", "stderr")) -> Object:
    """The request. `attached` are the streams that the caller will attach to. Raises UsageError."""
    image, *command = options.arguments
    config: Object = {"Image": image}
    host: Object = {}
    if command:
        config["Cmd"] = command
    for stream in attached:
        config[f"Attach{stream.capitalize()}"] = True
    for name, value in options.values.items():
        if name in HOST:
            host[HOST[name]] = value
        elif name in CONFIG:
            config[CONFIG[name]] = value
        elif name in _MAPS:
            host[_MAPS[name]] = pairs(value)
        else:
            _special(name, options, config, host)
    if options.on("interactive"):
        config |= {"OpenStdin": True, "StdinOnce": "stdin" in attached}
    config["HostConfig"] = host
    return config


def _special(name: str, options: Options, config: Object, host: Object) -> None:
    """Flags that need reading. Each reader is idempotent: it takes all flags of its family at once."""
    if name == "entrypoint":
        config["Entrypoint"] = [options.text(name)] if options.text(name) else [""]
    elif name in ("env", "env-file"):
        from bastide.cli.options import files

        config["Env"] = files.environment(options)
    elif name in ("label", "label-file"):
        from bastide.cli.options import files

        config["Labels"] = files.labels(options)
    elif name in _PORTS:
        from bastide.cli.options import ports

        config["ExposedPorts"], host["PortBindings"] = ports.read(options)
    elif name in _MOUNTS:
        from bastide.cli.options import mounts

        mounts.read(options, config, host)
    elif name in _NETWORK:
        from bastide.cli.options import networks

        networks.read(options, config, host)
    elif name in _DEVICES:
        from bastide.cli.options import devices

        devices.read(options, host)
    else:
        _more(name, options, config, host)


def _more(name: str, options: Options, config: Object, host: Object) -> None:
    if name in _HEALTH:
        config["Healthcheck"] = _health(options)
    elif name == "restart":
        host["RestartPolicy"] = restart_policy(options.text(name))
        if host["RestartPolicy"]["Name"] not in ("", "no") and options.on("rm"):
            raise UsageError("conflicting options: cannot specify both --restart and --rm")
    elif name in ("log-driver", "log-opt"):
        host["LogConfig"] = {"Type": options.text("log-driver"), "Config": pairs(options.all("log-opt"))}
    elif name == "ulimit":
        host["Ulimits"] = [ulimit(word) for word in options.all(name)]
    elif name == "security-opt":
        from bastide.cli.options import files

        host["SecurityOpt"] = files.security(options.all(name))
    elif name == "gpus":
        raise UsageError("--gpus is not supported: bastide hands no GPUs to containers")


def pairs(words: list[str]) -> dict[str, str]:
    """`key=value` words as a map; a key alone has an empty value."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def restart_policy(word: str) -> Object:
    """`on-failure:3` and its like. Raises UsageError."""
    name, colon, count = word.partition(":")
    if colon and not count.removeprefix("-").isdecimal():
        raise UsageError("invalid restart policy format: maximum retry count must be an integer")
    if not name and word:
        raise UsageError("invalid restart policy format: no policy provided before colon")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def ulimit(word: str) -> Object:
    """`nofile=1024:2048`. Raises UsageError."""
    name, mark, value = word.partition("=")
    soft, colon, hard = value.partition(":")
    try:
        if not mark:
            raise ValueError
        first = int(soft)
        second = int(hard) if colon else first
    except ValueError:
        raise UsageError(f'invalid argument "{word}" for "--ulimit" flag: name=soft[:hard] is the form') from None
    if -1 < second < first:
        raise UsageError(f"ulimit soft limit must be less than or equal to hard limit: {first} > {second}")
    return {"Name": name, "Soft": first, "Hard": second}


def _health(options: Options) -> Object:
    given = [name for name in _HEALTH[:-1] if name in options]
    if options.on("no-healthcheck"):
        if given:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    health: Object = {}
    if options.text("health-cmd"):
        health["Test"] = ["CMD-SHELL", options.text("health-cmd")]
    for name in given:
        if name == "health-cmd":
            continue
        if options.number(name) < 0:
            raise UsageError(f"--{name} cannot be negative")
        field = {"health-retries": "Retries"}.get(name) or "".join(
            part.capitalize() for part in name.removeprefix("health-").split("-")
        )
        health[field] = options.number(name)
    return health

"""What instructions make of an image's configuration. Pure: no file and no process is touched here."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from bastide.engine.merge import DEFAULT_PATH, words
from bastide.images.dockerfile import instructions as dockerfile
from bastide.images.dockerfile.stages import read_trigger
from bastide.images.dockerfile.words import Expander
from bastide.model.container import Config, HealthConfig
from bastide.model.errors import InvalidArgument
from bastide.model.image import Descriptor, History, Image, Platform

DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SIGNAL = re.compile(r"(SIG)?[A-Z][A-Z0-9]*([+-]\d+)?|\d{1,3}", re.IGNORECASE)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the making.

    `chain` names everything that led here, for the cache; `variables` are the build arguments in scope with
    their values, `command_set` whether this build set CMD (an ENTRYPOINT then keeps it).
    """

    platform: Platform
    chain: str
    config: Config = Config()
    layers: tuple[Descriptor, ...] = ()
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    author: str = ""
    created: str = ""
    variables: dict[str, str] = {}
    command_set: bool = False
    base: str = ""
    """Id of the image that it stands on; "" for scratch."""
    based_on: int = 0
    """How many of the layers are the base's."""

    @property
    def shell(self) -> tuple[str, ...]:
        """What runs the shell form."""
        return tuple(self.config.shell or DEFAULT_SHELL)

    @property
    def env(self) -> dict[str, str]:
        """The image's variables."""
        return dict(entry.partition("=")[::2] for entry in self.config.env or [])

    def expander(self, escape: str) -> Expander:
        """Expands with the arguments and, above them, the image's variables."""
        return Expander(self.variables | self.env, escape)


def from_scratch(platform: Platform, chain: str) -> State:
    """The state that FROM scratch gives."""
    return State(platform=platform, chain=chain, config=Config(env=[DEFAULT_PATH]))


def from_image(image: Image, chain: str) -> State:
    """The state that FROM an image gives."""
    config = image.config
    if not any(entry.startswith("PATH=") for entry in config.env or []):
        config = msgspec.structs.replace(config, env=[*(config.env or []), DEFAULT_PATH])
    return State(
        platform=image.platform,
        chain=chain,
        config=msgspec.structs.replace(config, on_build=None, hostname="", domainname="", image=""),
        layers=tuple(image.layers),
        diff_ids=tuple(image.diff_ids),
        history=tuple(image.history),
        author=image.author,
        created=image.created,
        base=image.id,
        based_on=len(image.diff_ids),
    )


def replace(state: State, **fields: Any) -> State:
    """The state with some fields of its configuration changed."""
    return msgspec.structs.replace(state, config=msgspec.structs.replace(state.config, **fields))


# -- instructions that change nothing but the configuration ----------------------------------------


def _env(state: State, said: dockerfile.Env, expander: Expander) -> tuple[State, str]:
    env = state.env
    for name, value in said.pairs:
        env[_name(expander.word(name))] = expander.word(value)
    changed = [f"{name}={value}" for name, value in env.items()]
    text = " ".join(f"{expander.word(name)}={expander.word(value)}" for name, value in said.pairs)
    return replace(state, env=changed), f"ENV {text}"


def _name(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise InvalidArgument(f"ENV names can not be blank or hold a =: {name!r}")
    return name


def _label(state: State, said: dockerfile.Label, expander: Expander) -> tuple[State, str]:
    added = {expander.word(name): expander.word(value) for name, value in said.pairs}
    if "" in added:
        raise InvalidArgument("LABEL names can not be blank")
    text = " ".join(f"{name}={value}" for name, value in added.items())
    return replace(state, labels=(state.config.labels or {}) | added), f"LABEL {text}"


def _command(state: State, said: dockerfile.Command, expander: Expander) -> tuple[State, str]:
    line = [*state.shell, *said.words] if said.shell and said.words else list(said.words)
    if said.entrypoint:
        # An entrypoint drops the command that the base image brought, not one that this Dockerfile set.
        command = state.config.cmd if state.command_set else None
        return replace(state, entrypoint=line or None, cmd=command), f"ENTRYPOINT {shown(line)}"
    changed = replace(state, cmd=line or None, args_escaped=False)
    return msgspec.structs.replace(changed, command_set=bool(line)), f"CMD {shown(line)}"


def shown(line: Sequence[str]) -> str:
    """Words as Docker's history has them: `["a" "b"]`."""
    return "[" + " ".join(msgspec.json.encode(word).decode() for word in line) + "]"


def _expose(state: State, said: dockerfile.Expose, expander: Expander) -> tuple[State, str]:
    ports: dict[str, Any] = {}
    for word in expander.words(said.text):
        for port in _ports(word):
            ports[port] = {}
    return replace(state, exposed_ports=(state.config.exposed_ports or {}) | ports), f"EXPOSE {' '.join(sorted(ports))}"


def _ports(word: str) -> Iterable[str]:
    """`80`, `80/udp`, `8000-8010`; of a mapping (`8080:80`) only the container's side counts, as in Docker."""
    match = _PORT.fullmatch(word.rpartition(":")[2])
    if match is None:
        raise InvalidArgument(f"invalid containerPort: {word}")
    first = int(match[1])
    last = int(match[2] or first)
    if not 0 < first <= last < 1 << 16:
        raise InvalidArgument(f"invalid containerPort: {word}")
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _volume(state: State, said: dockerfile.Volume, expander: Expander) -> tuple[State, str]:
    paths = [expander.word(path).strip() for path in said.paths]
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    volumes = (state.config.volumes or {}) | {path: {} for path in paths}
    return replace(state, volumes=volumes), f"VOLUME {shown(paths)}"


def _user(state: State, said: dockerfile.User, expander: Expander) -> tuple[State, str]:
    user = expander.word(said.user)
    if any(sign in user for sign in "\n\0"):
        raise InvalidArgument(f"invalid USER {user!r}")
    return replace(state, user=user), f"USER {user}"


def _workdir(state: State, said: dockerfile.Workdir, expander: Expander) -> tuple[State, str]:
    path = expander.word(said.path)
    if not path or "\0" in path:
        raise InvalidArgument("cannot normalize nothing")
    # Docker keeps an absolute path as it is written.
    absolute = path if path.startswith("/") else posixpath.normpath(posixpath.join("/", state.config.working_dir, path))
    absolute = "/" + absolute.lstrip("/")
    return replace(state, working_dir=absolute), f"WORKDIR {absolute}"


def _signal(state: State, said: dockerfile.StopSignal, expander: Expander) -> tuple[State, str]:
    name = expander.word(said.signal)
    if not _SIGNAL.fullmatch(name):
        raise InvalidArgument(f"Invalid signal: {name}")
    return replace(state, stop_signal=name), f"STOPSIGNAL {name}"


def _shell(state: State, said: dockerfile.Shell, expander: Expander) -> tuple[State, str]:
    return replace(state, shell=list(said.words)), f"SHELL {shown(said.words)}"


def _maintainer(state: State, said: dockerfile.Maintainer, expander: Expander) -> tuple[State, str]:
    return msgspec.structs.replace(state, author=said.name), f"MAINTAINER {said.name}"


def _on_build(state: State, said: dockerfile.OnBuild, expander: Expander) -> tuple[State, str]:
    return replace(state, on_build=[*(state.config.on_build or []), said.trigger]), f"ONBUILD {said.trigger}"


def _health(state: State, said: dockerfile.HealthCheck, expander: Expander) -> tuple[State, str]:
    check = HealthConfig(
        test=list(said.test),
        interval=said.interval,
        timeout=said.timeout,
        start_period=said.start_period,
        start_interval=said.start_interval,
        retries=said.retries,
    )
    return replace(state, healthcheck=check), f"HEALTHCHECK {shown(said.test)}"


_RULES: dict[type[dockerfile.Instruction], Callable[..., tuple[State, str]]] = {
    dockerfile.Env: _env,
    dockerfile.Label: _label,
    dockerfile.Command: _command,
    dockerfile.Expose: _expose,
    dockerfile.Volume: _volume,
    dockerfile.User: _user,
    dockerfile.Workdir: _workdir,
    dockerfile.StopSignal: _signal,
    dockerfile.Shell: _shell,
    dockerfile.Maintainer: _maintainer,
    dockerfile.OnBuild: _on_build,
    dockerfile.HealthCheck: _health,
}


def apply(state: State, instruction: dockerfile.Instruction, expander: Expander) -> tuple[State, str]:
    """The state after an instruction, and the words of its history. Raises InvalidArgument."""
    return _RULES[type(instruction)](state, instruction, expander)


def changes(config: Config, lines: Sequence[str]) -> Config:
    """A configuration after the instructions of `--change` (commit, import). Raises InvalidArgument."""
    allowed = "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split()
    state = State(platform=Platform(), chain="", config=config)
    for line in lines:
        if not line.strip():
            continue
        word = line.split(None, 1)[0].upper()
        if word not in allowed:
            raise InvalidArgument(f"{word} is not a valid change command")
        state, _ = apply(state, read_trigger(line, 1), Expander({}))
    return state.config


# -- the document --------------------------------------------------------------------------------


def document(state: State) -> dict[str, Any]:
    """The image's configuration as it is stored (image-spec, config.md, with Docker's additions)."""
    found: dict[str, Any] = {
        "architecture": state.platform.architecture,
        "os": state.platform.os,
        "created": state.created,
        "config": config_document(state.config),
        "rootfs": {"type": "layers", "diff_ids": list(state.diff_ids)},
        "history": [msgspec.to_builtins(step) for step in state.history],
    }
    if state.platform.variant:
        found["variant"] = state.platform.variant
    if state.author:
        found["author"] = state.author
    return found


def config_document(config: Config) -> dict[str, Any]:
    """The part that containers take over; what says nothing is left out."""
    health = config.healthcheck
    fields: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": config.exposed_ports,
        "Env": config.env,
        "Entrypoint": words(config.entrypoint),
        "Cmd": words(config.cmd),
        "Healthcheck": {name: value for name, value in msgspec.to_builtins(health).items() if value}
        if health
        else None,
        "ArgsEscaped": config.args_escaped,
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
        "OnBuild": config.on_build,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
        "Shell": config.shell,
    }
    return {name: value for name, value in fields.items() if value or (name == "StopTimeout" and value is not None)}

"""Making a container: everything is checked and laid out before its record exists."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from bastide.engine import architectures
from bastide.engine import bundle as bundles
from bastide.engine import host_config as host_configs
from bastide.engine.backends import Backends
from bastide.engine.clock import now
from bastide.engine.identity import check_name, new_id, new_name
from bastide.engine.images import Images
from bastide.engine.ledger import Ledger
from bastide.engine.lifecycle import remove_files
from bastide.engine.merge import command_line, merge
from bastide.engine.mounts import Resolver
from bastide.engine.networks import Networks
from bastide.engine.populate import Populator
from bastide.engine.volumes import Volumes
from bastide.images.manifest import parse_platform, rank
from bastide.model.config import Settings
from bastide.model.container import Config, Container, HostConfig
from bastide.model.errors import InvalidArgument, NotFound, Unsupported
from bastide.model.image import Image
from bastide.model.network import EndpointSettings
from bastide.runtime import Feature, Runtime


def check_features(host: HostConfig, config: Config, runtime: Runtime, mounts: bool) -> None:
    """Refuse by name what this wall cannot do. Raises Unsupported."""
    modes = {
        "--ipc": host.ipc_mode,
        "--pid": host.pid_mode,
        "--uts": host.uts_mode,
        "--userns": host.userns_mode,
        "--cgroupns": "" if host.privileged else host.cgroupns_mode,
    }
    shared = [f"{flag} {mode}" for flag, mode in modes.items() if mode == "host" or mode.startswith("container:")]
    wanted = {
        Feature.PRIVILEGED: host.privileged and "--privileged",
        Feature.HOST_NETWORK: host.network_mode == "host" and "--network host",
        Feature.DEVICES: bool(host.devices or host.device_cgroup_rules) and "--device",
        Feature.SYSCTLS: bool(host.sysctls) and "--sysctl",
        Feature.INIT: bool(host.init) and "--init",
        Feature.BIND_MOUNTS: mounts and "a bind mount or volume",
        Feature.SHARED_NAMESPACES: shared and f"a shared namespace ({' '.join(shared)})",
    }
    elsewhere = "leave it out or use --isolation container"
    if host.network_mode.startswith("container:") and Feature.SHARED_NAMESPACES not in runtime.features:
        raise Unsupported(f"isolation {runtime.isolation} does not offer --network container:NAME: {elsewhere}")
    for feature, asked in wanted.items():
        if asked and feature not in runtime.features:
            raise Unsupported(f"isolation {runtime.isolation} does not offer {asked}: {elsewhere}")
    runtime.check(host)


class Creator:
    """Makes containers from images."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        backends: Backends,
        images: Images,
        networks: Networks,
        volumes: Volumes,
    ) -> None:
        self._settings, self._ledger, self._backends = settings, ledger, backends
        self._images, self._networks, self._volumes = images, networks, volumes
        self._resolver = Resolver(volumes, ledger.find)
        self._populator = Populator(settings, backends)

    async def create(
        self,
        name: str,
        config: Config,
        host_config: HostConfig,
        endpoints: dict[str, EndpointSettings],
        platform: str = "",
    ) -> tuple[Container, list[str]]:
        """A new container and what the user should be warned of.

        Raises NotFound (image), InvalidArgument, Conflict (name), Unsupported, ResourceExhausted, HostError;
        on error nothing is left.
        """
        host = host_configs.checked(host_config)
        chosen = check_name(name) if name else new_name(self._ledger.names())
        if not config.image:
            raise InvalidArgument("config cannot be empty in order to create a container: an image is needed")
        image = self._images.get(config.image)
        if platform and rank(parse_platform(platform, self._images.host), image.platform) < 0:
            raise NotFound(
                f"image with reference {config.image} was found but its platform ({image.platform}) does not "
                f"match the specified platform ({platform})"
            )
        merged = merge(config, image.config)
        self._check_process(merged, host)
        runtime = await self._backends.choose(host.isolation, host.runtime)
        await architectures.check(image, self._images.host, runtime, self._backends)
        runtime.expect()
        self._ledger.reserve(chosen)
        try:
            async with self._images.using(image):
                container, warnings = await self._make(chosen, merged, host, image, endpoints, runtime)
        finally:
            self._ledger.release(chosen)
        if not platform and not architectures.is_native(image.platform, self._images.host):
            warnings.append(
                f"The requested image's platform ({image.platform}) does not match the detected host platform "
                f"({self._images.host}) and no specific platform was requested"
            )
        return container, warnings

    async def create_step(self, image: Image, config: Config, host_config: HostConfig) -> Container:
        """A container for one step of a build, of layers that the caller holds and that are no image yet.

        `config` is taken as it is. Raises as `create`.
        """
        host = host_configs.checked(host_config)
        self._check_process(config, host)
        runtime = await self._backends.choose(host.isolation, host.runtime)
        await architectures.check(image, self._images.host, runtime, self._backends)
        name = new_name(self._ledger.names())
        self._ledger.reserve(name)
        try:
            container, _ = await self._make(name, config, host, image, {}, runtime)
        finally:
            self._ledger.release(name)
        return container

    def _check_process(self, config: Config, host: HostConfig) -> None:
        """What can be judged of the process before it runs. Raises InvalidArgument."""
        bundles.capabilities(host)
        host_configs.check_health(config.healthcheck)
        if config.stop_signal:
            bundles.signal_number(config.stop_signal)
        if config.working_dir and not config.working_dir.startswith("/"):
            raise InvalidArgument(
                f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
            )
        for word, what in ((config.hostname, "hostname"), (config.domainname, "domain name")):
            if len(word) > 64 or any(not (c.isalnum() or c in "-._") for c in word):
                raise InvalidArgument(f"invalid {what}: {word!r}")

    async def _make(
        self,
        name: str,
        config: Config,
        host: HostConfig,
        image: Image,
        endpoints: dict[str, EndpointSettings],
        runtime: Runtime,
    ) -> tuple[Container, list[str]]:
        container_id = new_id()
        snapshotter = self._backends.snapshotter(runtime.snapshotter)
        async with AsyncExitStack() as undo:
            volumes: list[str] = []
            undo.push_async_callback(self._drop_volumes, volumes)
            points = await self._resolver.resolve(config, host, volumes)
            check_features(host, config, runtime, any(point.type != "tmpfs" for point in points))
            wanted = self._networks.check(host, endpoints, config.mac_address or "")
            command, *arguments = command_line(config)
            container = Container(
                id=container_id,
                name=name,
                created=now(),
                config=msgspec.structs.replace(
                    config, hostname=config.hostname or ("" if host.uts_mode == "host" else container_id[:12])
                ),
                host_config=host,
                image_id=image.id,
                image_ref=config.image,
                layers=image.diff_ids,
                isolation=runtime.isolation,
                runtime=runtime.name,
                snapshotter=runtime.snapshotter,
                platform=image.platform.os,
                architecture=image.platform.architecture,
                variant=image.platform.variant,
                path=command,
                args=arguments,
                mounts=points,
                networks=wanted,
                log_path=str(bundles.Paths(self._settings, container_id).log),
            )
            undo.push_async_callback(remove_files, self._settings, container_id)
            undo.push_async_callback(snapshotter.remove, container_id)
            root = await snapshotter.prepare(container_id, image.diff_ids, size=_root_size(host))
            await self._populator.fill(container, root)
            self._ledger.save(container)
            undo.pop_all()
        self._ledger.event(container, "create")
        return container, host_configs.warnings(config, host)

    async def _drop_volumes(self, names: list[str]) -> None:
        for name in names:
            await self._volumes.remove(name, force=True)


def _root_size(host: HostConfig) -> int:
    """`--storage-opt size=` in bytes, 0 when not given. Raises InvalidArgument."""
    options = dict(host.storage_opt or {})
    size = options.pop("size", "")
    if options:
        raise InvalidArgument(f"unknown storage option {next(iter(options))!r}: only size is known")
    units = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    number = size.lower().rstrip("b").rstrip("kmgt")
    unit = size.lower().removesuffix("b")[len(number) :]
    if size and (not number.isdigit() or unit not in units):
        raise InvalidArgument(f"invalid size: {size!r}")
    return int(number) * units[unit] if size else 0

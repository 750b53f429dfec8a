"""RUN: a container over the layers so far, run to its end; what it changed becomes a layer.

Where only the runtime reaches a container's files (a VM), the container waits while the command runs in it
as a second process, and its agent is asked what changed before the whole goes down.
"""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Sequence

import msgspec

from bastide.engine import bundle as bundles
from bastide.engine.backends import Backends
from bastide.engine.build.layers import Workshop
from bastide.engine.build.options import Options
from bastide.engine.build.output import Voice
from bastide.engine.build.state import State
from bastide.engine.build.stubs import Stubs
from bastide.engine.containers import Containers
from bastide.engine.create import Creator
from bastide.engine.ledger import Ledger
from bastide.host.paths import root_of
from bastide.host.syscalls import blocking
from bastide.images.changes import Packed
from bastide.model.container import NEVER, Config, Container, HealthConfig, HostConfig, LogConfig, Mount
from bastide.model.errors import BastideError, Conflict, NotFound, Unsupported
from bastide.model.image import Descriptor, Image
from bastide.model.process import DirectoryRoot
from bastide.runtime import Feature, Files, Runtime, Stdio, Stream
from bastide.storage import Snapshotter, Trees

ANNOTATION = "bastide.build"
"""On a container that a build made; the next start of the daemon removes what a crash left."""
_NOTHING = Descriptor(media_type="", digest="", size=0)


class StepFailed(BastideError):
    """A step's command did not succeed; `code` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Runner:
    """Runs the steps of one build."""

    def __init__(
        self,
        build: str,
        options: Options,
        containers: Containers,
        creator: Creator,
        ledger: Ledger,
        backends: Backends,
        snapshotter: Snapshotter,
        workshop: Workshop,
    ) -> None:
        self._build, self._options = build, options
        self._containers, self._creator, self._ledger = containers, creator, ledger
        self._backends = backends
        self._snapshotter, self._workshop = snapshotter, workshop

    async def run(
        self,
        state: State,
        words: Sequence[str],
        env: Sequence[str],
        mounts: list[Mount],
        network: str,
        voice: Voice,
    ) -> Packed | None:
        """The layer that a command makes, None when it changes nothing.

        Raises StepFailed, and what making and starting a container raises. The container is gone after.
        """
        runtime = await self._backends.choose(self._options.isolation, "")
        outside = runtime.snapshotter == self._snapshotter.name
        config = self._config(state, words, env)
        if not outside:
            config = _waiting(config, state, runtime)
        container = await self._creator.create_step(_image(state), config, self._host(mounts, network))
        try:
            if outside:
                packed = await self._outside(container, words, voice)
            else:
                packed = await self._inside(container, runtime, words, voice)
        finally:
            await asyncio.shield(self._remove(container))
        voice.say(f" ---> Removed intermediate container {container.id[:12]}\n")
        return packed

    async def _outside(self, container: Container, words: Sequence[str], voice: Voice) -> Packed | None:
        """The command is the container's own process; its files lie on the host."""
        stubs = await self._stubs(container)
        voice.say(f" ---> Running in {container.id[:12]}\n")
        _judge(words, await self._to_its_end(container, voice))
        return await self._take(container, stubs)

    async def _inside(
        self, container: Container, runtime: Runtime, words: Sequence[str], voice: Voice
    ) -> Packed | None:
        """The command is one more process of a container that waits; the runtime tells what changed."""
        assert isinstance(runtime, Files)
        process = msgspec.structs.replace(bundles.main_process(container), args=tuple(words), stdin=False)
        voice.say(f" ---> Running in {container.id[:12]}\n")
        await self._containers.start(container.id)
        name = os.urandom(8).hex()
        streams = await runtime.exec(container.id, name, process)
        try:
            await _copy(streams, voice)
            ended = await runtime.wait(container.id, name)
        finally:
            await streams.close()
        _judge(words, ended.code)
        return await self._workshop.take_guest(runtime, container.id)

    def _config(self, state: State, words: Sequence[str], env: Sequence[str]) -> Config:
        return Config(
            user=state.config.user,
            env=list(env),
            cmd=list(words),
            working_dir=state.config.working_dir,
            image=state.base or "scratch",
            attach_stdout=True,
            attach_stderr=True,
            healthcheck=HealthConfig(test=["NONE"]),
            labels={},
        )

    def _host(self, mounts: list[Mount], network: str) -> HostConfig:
        options = self._options
        return HostConfig(
            mounts=mounts,
            network_mode=network or options.network,
            extra_hosts=options.extra_hosts,
            isolation=options.isolation,
            # What a step prints may be worth hiding: it goes to the client and is not kept.
            log_config=LogConfig(type="none"),
            annotations={ANNOTATION: self._build},
            memory=options.memory,
            memory_swap=options.memory_swap,
            cpu_shares=options.cpu_shares,
            cpu_period=options.cpu_period,
            cpu_quota=options.cpu_quota,
            cpuset_cpus=options.cpuset_cpus,
            cpuset_mems=options.cpuset_mems,
            shm_size=options.shm_size,
            ulimits=options.ulimits,
            cgroup_parent=options.cgroup_parent,
            security_opt=options.security_options,
        )

    async def _stubs(self, container: Container) -> Stubs:
        root = await self._snapshotter.mount(container.id)
        assert isinstance(root, DirectoryRoot)
        targets = [point.destination for point in container.mounts]

        def look() -> Stubs:
            with root_of(root.path) as fd:
                return Stubs(fd, targets)

        return await blocking(look)

    async def _to_its_end(self, container: Container, voice: Voice) -> int:
        streams = await self._containers.attach(container.id)
        ended = self._containers.waiter(container.id, "next-exit")
        try:
            await self._containers.start(container.id)
            await _copy(streams, voice)
            waited = await ended
        finally:
            ended.cancel()
            await streams.close()
        if waited.error:
            raise Conflict(waited.error)
        # Whoever ends the container holds its lock until the mounts are down.
        async with self._ledger.lock(container):
            return waited.code

    async def _take(self, container: Container, stubs: Stubs) -> Packed | None:
        assert isinstance(self._snapshotter, Trees)
        upper = self._snapshotter.upper(container.id)

        def clean() -> None:
            with root_of(upper) as fd:
                stubs.remove(fd)

        await blocking(clean)
        return await self._workshop.adopt(upper)

    async def _remove(self, container: Container) -> None:
        try:
            await self._containers.remove(container.id, force=True, volumes=True)
        except (NotFound, Conflict):
            return


def _judge(words: Sequence[str], code: int) -> None:
    """Raise StepFailed, in Docker's words, for any code but 0."""
    if code:
        raise StepFailed(f"The command '{' '.join(words)}' returned a non-zero code: {code}", code)


def _waiting(config: Config, state: State, runtime: Runtime) -> Config:
    """The same container with a main process that waits for input that never comes. Raises Unsupported."""
    if Feature.FILES not in runtime.features or not isinstance(runtime, Files):
        raise Unsupported(f"isolation {runtime.isolation} keeps a step's files where no layer can be made of them")
    return msgspec.structs.replace(config, cmd=[*state.shell, "read _"], open_stdin=True)


def _image(state: State) -> Image:
    """The layers so far in the form that a container is made from; it is no image of the store."""
    return Image(
        id=state.base or f"sha256:{os.urandom(32).hex()}",
        manifest=_NOTHING,
        target=_NOTHING,
        layers=list(state.layers),
        diff_ids=list(state.diff_ids),
        platform=state.platform,
        created=NEVER,
        config=Config(),
    )


async def _copy(streams: Stdio, voice: Voice) -> None:
    """What the command writes, as text; a character that is cut in two waits for its rest."""
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in Stream}
    async for stream, piece in streams.output():
        if text := decoders[stream].decode(piece):
            await voice.output(text, error=stream is Stream.STDERR)

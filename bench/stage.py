"""What the cases are played on: the image, the registry and every contender, started; and ended whatever happens."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from bench import image
from bench.contenders import (
    Bastide,
    BastideFixed,
    BastideForeign,
    BastideVm,
    BastideWarm,
    Buildah,
    BuildKit,
    Contender,
    Crun,
    Docker,
    Podman,
)
from bench.measure import BenchError, run
from bench.packages import GUEST

PEERS = (Docker.name, Podman.name, Buildah.name, Crun.name)


class Stage:
    """A context manager. `contenders` holds those that started; `size` is how many containers make a crowd."""

    def __init__(self, work: Path, peers: Sequence[str] | None, quick: bool) -> None:
        self.work = work
        self.crowd = 20 if quick else 200
        self.vm_crowd = 2 if quick else 5
        self.vm_many = 10 if quick else 100
        self.contenders: list[Contender] = []
        self._peers = peers
        self._ends = ExitStack()

    def __enter__(self) -> Stage:
        try:
            self.image = image.make()
            self._ends.callback(image.serve(self.work / "registry", self.image).stop)
            for contender in self._candidates():
                self._start(contender)
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def emulator(self) -> str:
        """What ran the VMs that were measured; empty when there were none."""
        return next((one.emulator() for one in self.contenders if type(one) is Bastide), "")

    def _candidates(self) -> list[Contender]:
        bastide = Bastide(self.work / "bastide", GUEST)
        docker = Docker(self.work / "docker")
        peers: dict[str, list[Contender]] = {
            Docker.name: [docker, BuildKit(docker)],
            Podman.name: [Podman(self.work / "podman")],
            Buildah.name: [Buildah(self.work / "buildah")],
            Crun.name: [Crun(self.work / "crun")],
        }
        chosen = [peers[name] for name in PEERS if self._peers is None or name in self._peers]
        own = (
            bastide,
            *(kind(bastide) for kind in (BastideVm, BastideFixed, BastideForeign)),
            BastideWarm(self.work / "warm", GUEST),
        )
        return [*itertools.chain.from_iterable(chosen), *own]

    def _start(self, contender: Contender) -> None:
        """Start it and give it the image; one that cannot is left out, and that is said."""
        try:
            contender.start()
            self._ends.callback(contender.stop)
            if isinstance(contender, Crun):
                contender.unpack(self.image.layers)
            elif not isinstance(contender, BastideVm | BuildKit):
                run(contender.pull(image.NAME), contender.environment)
        except BenchError as error:
            sys.stderr.write(f"{contender.name} takes no part: {error}\n")
            return
        self.contenders.append(contender)

"""`python -m bench.breakdown [RUNTIME]`: where the milliseconds of a container's life go, below the engine.

Each stage of create, start, wait, delete and exec through the contracts, and beside it, in turns, the
runtime program alone on the same root and configuration. As root; everything is in a private folder.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bastide import runtime as runtimes
from bastide import storage
from bastide.host import cgroups, mounts
from bastide.host.namespaces import hide_hybrid, hybrid_is_refused
from bastide.host.processes import Spawner
from bastide.model.config import Settings
from bastide.model.container import HostConfig
from bastide.model.process import Bundle, DirectoryRoot, Process

ROUNDS = 20
PAUSE = 0.1
"""Seconds between two measurements: back to back, the kernel's waits are shared and look cheaper than they are."""
DIFF_ID = "sha256:" + "be" * 32
CAPABILITIES = ("CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")

Samples = dict[str, list[float]]


async def timed(samples: Samples, name: str, work: Awaitable[object]) -> None:
    """Await and keep the milliseconds."""
    begin = time.perf_counter()
    await work
    samples.setdefault(name, []).append((time.perf_counter() - begin) * 1000)


class Breakdown:
    """One runtime and one snapshotter in a folder of their own."""

    def __init__(self, name: str, base: Path) -> None:
        self.settings = Settings(
            data_root=base / "data", run_root=base / "run", cgroup_parent=f"breakdown-{os.getpid()}"
        )
        self.runtime = runtimes.load(name)(self.settings)
        self.snapshotter = storage.load("overlay")(self.settings)
        self.spawner = Spawner(hide_hybrid if hybrid_is_refused() else None)
        self.samples: Samples = {}

    async def prepare(self) -> None:
        """A layer with a static busybox."""
        probe = await self.runtime.probe()
        if not probe.usable:
            raise SystemExit(f"breakdown: {probe.reason}")
        async with self.snapshotter.layer(DIFF_ID) as folder:
            if folder is not None:
                for place in ("bin", "proc", "sys", "dev", "etc"):
                    (folder / place).mkdir()
                shutil.copy("/bin/busybox", folder / "bin" / "busybox")
                for applet in ("true", "sleep"):
                    (folder / "bin" / applet).symlink_to("busybox")

    async def bundle(self, container: str, *args: str) -> Bundle:
        root = await self.snapshotter.prepare(container, [DIFF_ID])
        return Bundle(
            id=container,
            name=container,
            directory=self.settings.run_root / "containers" / container,
            root=root,
            process=Process(args=args, env=("PATH=/bin",), capabilities=CAPABILITIES),
            hostname="breakdown",
            host_config=HostConfig(),
            log_path=self.settings.data_root / f"{container}.log",
            cgroup_path=f"/{self.settings.cgroup_parent}/{container}",
        )

    async def life(self) -> None:
        """One container from nothing to nothing."""
        container = os.urandom(32).hex()
        made: list[Bundle] = []

        async def snapshot() -> None:
            made.append(await self.bundle(container, "true"))

        await timed(self.samples, "snapshot", snapshot())
        await timed(self.samples, "create", self.runtime.create(made[0]))
        await timed(self.samples, "start", self.runtime.start(container))
        await timed(self.samples, "wait", self.runtime.wait(container))
        await timed(self.samples, "delete", self.runtime.delete(container))
        await timed(self.samples, "remove", self.snapshotter.remove(container))

    async def alone(self, bundle: Path) -> None:
        """The runtime program's own `run` of the same configuration."""
        name = os.urandom(8).hex()
        argv = [
            self.runtime.name,
            "--root",
            str(self.settings.run_root / "alone"),
            "run",
            "--bundle",
            str(bundle),
            name,
        ]
        finished = await self.spawner.run(argv)
        if finished.code:
            raise SystemExit(f"breakdown: {finished.complaint}")

    async def exec(self, container: str, *, expected: bool) -> None:
        """One exec through the contract, with or without the hint that the engine gives beforehand."""
        if expected:
            self.runtime.expect()
            await asyncio.sleep(0.006)
        name = os.urandom(8).hex()
        stdio = await self.runtime.exec(
            container, name, Process(args=("true",), env=("PATH=/bin",), capabilities=CAPABILITIES)
        )
        async for _ in stdio.output():
            pass
        await self.runtime.wait(container, name)
        await stdio.close()

    async def run(self) -> None:
        """All rounds, in turns."""
        await self.prepare()
        sleeper = await self.bundle("sleeper", "sleep", "1000")
        template = await self.template()
        await self.runtime.create(sleeper)
        await self.runtime.start("sleeper")
        stages: list[Callable[[], Awaitable[None]]] = [
            self.life,
            lambda: timed(self.samples, f"{self.runtime.name} run alone", self.alone(template)),
            lambda: timed(self.samples, "exec", self.exec("sleeper", expected=False)),
            lambda: timed(self.samples, "exec, 6 ms after the hint", self.exec("sleeper", expected=True)),
        ]
        try:
            for _ in range(ROUNDS):
                for stage in stages:
                    await asyncio.sleep(PAUSE)
                    await stage()
        finally:
            await self.runtime.delete("sleeper")
            await self.snapshotter.remove("sleeper")
            await self.snapshotter.remove("alone")

    async def template(self) -> Path:
        """A bundle for the program alone: the configuration of a created container, with another cgroup."""
        bundle = await self.bundle("alone", "true")
        await self.runtime.create(bundle)
        text = (bundle.directory / "config.json").read_text()
        await self.runtime.delete("alone")
        place = self.settings.run_root / "template"
        place.mkdir()
        (place / "config.json").write_text(text)
        assert isinstance(bundle.root, DirectoryRoot)
        return place

    def show(self) -> None:
        """Medians and the spread, one line a stage."""
        for name, values in self.samples.items():
            ordered = sorted(values)
            print(f"{name:28} {statistics.median(ordered):7.1f} ms   {ordered[1]:6.1f} to {ordered[-2]:6.1f}")


def main() -> int:
    """Run, print, clean up."""
    if os.geteuid() != 0:
        sys.stderr.write("breakdown: must run as root: it makes containers\n")
        return 1
    base = Path(tempfile.mkdtemp(prefix="bastide-breakdown-"))
    made = Breakdown(sys.argv[1] if len(sys.argv) > 1 else "crun", base)
    try:
        asyncio.run(made.run())
    finally:
        for entry in reversed(mounts.mounts()):
            if Path(entry.target).is_relative_to(base):
                mounts.unmount(entry.target)
        cgroups.Group(made.settings.cgroup_parent).remove()
        shutil.rmtree(base, ignore_errors=True)
    made.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())

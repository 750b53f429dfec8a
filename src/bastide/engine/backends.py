"""Which runtime and which snapshotter serve a container: chosen once, by what works here."""

from __future__ import annotations

from bastide import runtime, storage
from bastide.model.config import Settings
from bastide.model.container import Isolation
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.runtime import Probe, Runtime


class Backends:
    """The runtimes and snapshotters of this daemon, made on first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runtimes: dict[str, Runtime] = {}
        self._snapshotters: dict[str, storage.Snapshotter] = {}

    def runtime(self, name: str) -> Runtime:
        """The runtime of that name. Raises InvalidArgument for an unknown one."""
        if name not in self._runtimes:
            self._runtimes[name] = runtime.load(name)(self._settings)
        return self._runtimes[name]

    def snapshotter(self, name: str) -> storage.Snapshotter:
        """The snapshotter of that name; those that build on unpacked layers get the overlay."""
        if name not in self._snapshotters:
            base = None if name == "overlay" else self.snapshotter("overlay")
            self._snapshotters[name] = storage.load(name)(self._settings, base)
        return self._snapshotters[name]

    async def probe(self) -> dict[str, Probe]:
        """Every runtime with what it says about this host."""
        return {name: await self.runtime(name).probe() for name in runtime.runtimes()}

    async def choose(self, isolation: str, name: str) -> Runtime:
        """The runtime for what was asked; empty words mean the defaults.

        Raises InvalidArgument (unknown or contradictory words), Unsupported (it does not work here:
        the reason and what to do).
        """
        if isolation in ("", "default"):
            isolation = "" if name else self._settings.isolation
        elif isolation not in set(Isolation):
            raise InvalidArgument(f"invalid isolation {isolation!r}: choose one of {', '.join(Isolation)}")
        name = name or (self._settings.runtime if not isolation or isolation == "container" else "")
        if name:
            chosen = self.runtime(name)
            if isolation and chosen.isolation != isolation:
                raise InvalidArgument(
                    f"runtime {name} gives isolation {chosen.isolation}, not {isolation}: name only one of them"
                )
            probe = await chosen.probe()
            if probe.usable:
                return chosen
            raise Unsupported(f"runtime {name} does not work here: {probe.reason}")
        reasons = []
        for candidate in runtime.runtimes():
            if runtime.load(candidate).isolation == isolation:
                probe = await self.runtime(candidate).probe()
                if probe.usable:
                    return self.runtime(candidate)
                reasons.append(f"{candidate}: {probe.reason}")
        raise Unsupported(f"isolation {isolation} does not work here: {'; '.join(reasons)}")

"""A daemon that is killed at any moment leaves nothing that the next one does not find: devices, namespaces, rules."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bastide.model.config import Settings
from bastide.network import Endpoint, Preparing, load, prepared
from bastide.network.namespaces import Namespaces

from .test_network import BRIDGE, TABLE, bridged, clean, devices, planned, settings

__all__ = ["clean", "settings"]

ROUNDS = 12

# Joins, publishes, takes and leaves without end, and says what is held after each step.
_RESTLESS = """
import asyncio, random, sys, msgspec
from pathlib import Path
from bastide.model.config import Settings
from bastide.model.network import EndpointSettings, Network
from bastide.network import Endpoint, NamespacePlug, Port, TapPlug, load
from bastide.network.namespaces import Namespaces

async def main():
    settings = msgspec.json.decode(sys.argv[1], type=Settings, dec_hook=lambda kind, value: kind(value))
    network = msgspec.json.decode(sys.argv[2], type=Network)
    bridge, namespaces = load("bridge")(settings), Namespaces(settings)
    await namespaces.open([])
    await bridge.restore(network, [])
    bridge.refill(network)
    namespaces.tidy()
    held = []
    while True:
        turn = random.randrange(5)
        if turn == 0 and (got := bridge.take(network, "c")):
            held.append(got)
        elif turn == 1:
            path = await namespaces.take()
            held.append((path, await bridge.join(network, "c", NamespacePlug(path=path), EndpointSettings())))
        elif turn == 2:
            held.append((None, await bridge.join(network, "c", TapPlug(owner=0), EndpointSettings())))
        elif turn == 3 and held:
            path, endpoint = held.pop(random.randrange(len(held)))
            await bridge.release(network, endpoint)
            if path:
                namespaces.discard(path)
        elif held:
            path, endpoint = held.pop()
            port = Port(container_port=80, protocol="tcp", host_ip="127.0.0.1", host_port=0)
            held.append((path, await bridge.publish(network, endpoint, [port])))
        await asyncio.sleep(random.random() / 50)

asyncio.run(main())
"""


def elements(table: str) -> int:
    """How many elements the sets of endpoints and ports have."""
    found = 0
    for family in ("inet", "bridge"):
        listed = subprocess.run(["nft", "-j", "list", "table", family, table], capture_output=True, check=False)
        for entry in json.loads(listed.stdout or b'{"nftables": []}')["nftables"]:
            holder = entry.get("set") or entry.get("map") or {}
            if holder.get("name") in ("ports", "macs", "sources4", "bound4", "any4"):
                found += len(holder.get("elem", []))
    return found


def begin(settings: Settings, network: bytes) -> subprocess.Popen[bytes]:
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in _fields(settings)}
    return subprocess.Popen(
        [sys.executable, "-c", _RESTLESS, json.dumps(plain), network.decode()],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )


def _fields(settings: Settings) -> list[tuple[str, object]]:
    return [(name, getattr(settings, name)) for name in settings.__struct_fields__]


@pytest.mark.timeout(120)
async def test_killed_at_any_moment(settings: Settings) -> None:
    import msgspec

    network = planned(load("bridge")(settings), bridged())
    tag = load("bridge")(settings).tag  # type: ignore[attr-defined]
    for _ in range(ROUNDS):
        process = begin(settings, msgspec.json.encode(network))
        await asyncio.sleep(0.3 + random.random())
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()

        bridge, namespaces = load("bridge")(settings), Namespaces(settings)
        await namespaces.open([])
        kept: list[Endpoint] = []
        await bridge.restore(network, kept)
        assert not list(prepared.folder(settings).iterdir())
        assert {name for name in devices() if name.startswith((f"v{tag}", f"t{tag}"))} == set()
        assert elements(TABLE) == 0
        assert BRIDGE in devices()
        assert isinstance(bridge, Preparing)
        await bridge.close()
        await namespaces.close()
    last = load("bridge")(settings)
    await last.down(network)

"""Programs for other architectures: Debian's static busybox of each, fetched by apt and unpacked, never installed."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
CACHE = Path("/var/cache/bastide-tests")
MACHINES = {"arm64": "aarch64", "arm": "armv7l"}
"""What uname(2) says on each."""


@cache
def guest_script() -> ModuleType:
    """scripts/guest, which knows how apt finds another architecture's packages and has fetched their lists."""
    loader = importlib.machinery.SourceFileLoader("guest_script", str(ROOT / "scripts" / "guest"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def busybox(architecture: str) -> Path:
    """The static busybox for an architecture by Go's name."""
    cache = CACHE / f"busybox-{architecture}"
    # Debian 13 has no /bin of its own any more: the package's file is below usr.
    places = [cache / "root" / folder / "busybox" for folder in ("bin", "usr/bin")]
    if not any(place.exists() for place in places):
        cache.mkdir(parents=True, exist_ok=True)
        wanted = guest_script().ARCHITECTURES[architecture]
        guest_script().prepare(wanted)
        apt = ["apt-get", *wanted.apt(), "-o", "APT::Sandbox::User=root"]
        subprocess.run([*apt, "download", "busybox-static"], check=True, capture_output=True, cwd=cache)
        (archive,) = cache.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, cache / "root"], check=True)
    return next(place for place in places if place.exists())

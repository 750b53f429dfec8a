"""Programs newer than the distribution's: packages of a later Debian suite, unpacked and never installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

CACHE = Path("/var/cache/bastide-tests")
SUITE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n"
OLDEST_DOCKER = 26
"""The first major version of docker's command line and daemon that has everything which the cases use."""


def unpack(package: str, program: str) -> Path:
    """A program of a package, fetched by apt into a cache of the tests."""
    cache = CACHE / package
    found = cache / "root" / program
    if not found.exists():
        for folder in ("lists/partial", "archives/partial"):
            (cache / folder).mkdir(parents=True, exist_ok=True)
        (cache / "sources.list").write_text(SUITE)
        options = {
            "Dir::Etc::sourcelist": cache / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": cache / "lists",
            "Dir::Cache": cache,
        }
        apt = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
        subprocess.run([*apt, "update"], check=True, capture_output=True)
        subprocess.run([*apt, "download", package], check=True, capture_output=True, cwd=cache)
        (archive,) = cache.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, cache / "root"], check=True)
    return found


def _installed(program: str) -> Path | None:
    """Where a program of docker is on the PATH, when it is new enough."""
    found = shutil.which(program)
    if not found:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version (\d+)", said)
    return Path(found).parent if version and int(version.group(1)) >= OLDEST_DOCKER else None


def docker_folder() -> Path:
    """Where a `docker` is that has what the cases use: the one on the PATH when it does."""
    return _installed("docker") or unpack("docker-cli", "usr/bin/docker").parent


def dockerd_folders() -> list[Path]:
    """Where a `dockerd` and its containerd are that have what the cases use; runc is the distribution's own."""
    if installed := _installed("dockerd"):
        return [installed]
    return [unpack("docker.io", "usr/sbin/dockerd").parent, unpack("containerd", "usr/bin/containerd").parent]

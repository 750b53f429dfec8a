"""Programs newer than the distribution's: packages of a later Debian suite, unpacked and never installed.

BASTIDE_TEST_PEER_SUITE names the suite that a dockerd to compare with comes from, where it is to be that and no other:
trixie has 26.1 (API 1.45), forky 28.5 (API 1.51).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

CACHE = Path("/var/cache/bastide-tests")
SUITE = "trixie"
PEER_SUITE = os.environ.get("BASTIDE_TEST_PEER_SUITE", "")
SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {} main\n"
OLDEST_DOCKER = 26
"""The first major version of docker's command line and daemon that has everything which the cases use."""


def unpack(package: str, program: str, suite: str = SUITE) -> Path:
    """A program of a package, fetched by apt into a cache of the tests."""
    cache = CACHE / suite / package
    found = cache / "root" / program
    if not found.exists():
        for folder in ("lists/partial", "archives/partial"):
            (cache / folder).mkdir(parents=True, exist_ok=True)
        (cache / "sources.list").write_text(SOURCE.format(suite))
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
    if not PEER_SUITE and (installed := _installed("dockerd")):
        return [installed]
    programs = (("docker.io", "usr/sbin/dockerd"), ("containerd", "usr/bin/containerd"))
    return [unpack(package, program, PEER_SUITE or SUITE).parent for package, program in programs]


def dockerd_minor() -> int:
    """The newest minor version of the API, up to 1.47, that the dockerd to compare with speaks."""
    program = dockerd_folders()[0] / "dockerd"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    (major,) = re.findall(r"version (\d+)", said)
    return min(47, {26: 45}.get(int(major), 47))

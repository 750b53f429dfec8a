"""Sequential reads inside a container: from a volume and from its root, timed by a program in it."""

from __future__ import annotations

import os
from pathlib import Path

from bench.contenders import Contender
from bench.image import NAME
from bench.measure import BenchError, run
from bench.stage import Stage

SIZE = 128 << 20
"""Bytes in the volume; more than a guest would have read ahead by the way."""
PER = 100 * 1000 * 1000
"""The figures are for so many bytes."""
_VOLUME = "/bench"
_PROGRAM = """
import os, sys, time
files = [sys.argv[1]] if os.path.isfile(sys.argv[1]) else sorted(
    (os.path.join(folder, name) for folder, _, names in os.walk(sys.argv[1]) for name in names),
    key=lambda path: -os.lstat(path).st_size)[:20]
buffer, done, began = bytearray(1 << 20), 0, time.perf_counter()
for path in files:
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            done += count
print(time.perf_counter() - began, done)
"""


def prepare(contender: Contender, stage: Stage) -> None:
    """Make the volume, and read once so that the host holds everything in memory."""
    file = _folder(stage) / "file"
    if not file.exists():
        file.parent.mkdir()
        file.write_bytes(os.urandom(SIZE))
    volume(contender, stage)
    root(contender, stage)


def _folder(stage: Stage) -> Path:
    return stage.work / "volume"


def volume(contender: Contender, stage: Stage) -> float:
    """Milliseconds for PER bytes of one big file on a volume, in a container that has read nothing yet."""
    return _time(contender, stage, f"{_VOLUME}/file")


def root(contender: Contender, stage: Stage) -> float:
    """The same for the twenty biggest files of the image."""
    return _time(contender, stage, "/usr")


def _time(contender: Contender, stage: Stage, path: str) -> float:
    flags = ("--rm", "--network=none", f"--volume={_folder(stage)}:{_VOLUME}:ro", *contender.run_flags)
    said = run(contender.command("run", *flags, NAME, "python3", "-c", _PROGRAM, path), contender.environment)
    try:
        seconds, done = said.split()
        return float(seconds) * 1000 * PER / int(done)
    except ValueError as error:
        raise BenchError(f"{contender.name}: reading {path} said {said!r}") from error

"""Record what Debian's docker makes of the corpus: `python -m tests.record_dockerfiles [CASE …]`, as root.

Starts a dockerd of its own in a private folder, and ends it. What docker 20.10 does not know (here-documents,
`COPY --link`) is not recorded; its classic builder is asked first, its BuildKit where that one fails to know.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.dockerfiles import Case, cases, taken_apart
from tests.living import busybox_archive

DOCKER = "/usr/bin/docker"


class Docker:
    """A private dockerd. Its networks are not needed: every step runs without one."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "docker.sock"
        self.environment = {"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{self.socket}", "HOME": str(folder)}
        words = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        words += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        (folder / "daemon.json").write_text("{}")
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["dockerd", f"--config-file={folder / 'daemon.json'}", f"--host=unix://{self.socket}", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self.socket.exists():
            assert self.process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)

    def run(self, *words: str, buildkit: bool = False) -> subprocess.CompletedProcess[bytes]:
        """Run the docker client."""
        environment = self.environment | {"DOCKER_BUILDKIT": "1" if buildkit else "0"}
        return subprocess.run([DOCKER, *words], capture_output=True, env=environment, check=False, timeout=300)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


def record(docker: Docker, case: Case, base: bytes) -> str:
    """Build a case and write down what came out; gives a line about it."""
    buildkit = not case.classic
    if buildkit and not case.buildkit:
        return "not known to docker 20.10"
    with tempfile.TemporaryDirectory() as folder:
        context = case.lay_out(Path(folder))
        words = ["build", "--no-cache", "--network=none", "--tag=case", *case.flags(), str(context)]
        done = docker.run(*words, buildkit=buildkit)
    if case.fails is not None:
        return "fails as it should" if done.returncode else "DOES NOT FAIL"
    if done.returncode:
        return f"FAILS: {done.stderr.decode()[-300:]}"
    saved = docker.run("save", "case")
    found = taken_apart(saved.stdout, base)
    builder = "BuildKit" if buildkit else "the classic builder"
    case.golden("image").write_text(
        json.dumps({"made by": f"docker 20.10.24, {builder}"} | found, indent=2, ensure_ascii=False) + "\n"
    )
    docker.run("rmi", "-f", "case")
    return "recorded"


def main(chosen: list[str]) -> int:
    """Record the cases that were named, or all."""
    with tempfile.TemporaryDirectory(prefix="bst-docker-", ignore_cleanup_errors=True) as folder:
        docker = Docker(Path(folder))
        try:
            archive = busybox_archive(Path(folder) / "busybox.tar")
            loaded = docker.run("load", "--input", str(archive))
            assert not loaded.returncode, loaded.stderr
            base = docker.run("save", "busybox").stdout
            for case in cases():
                if not chosen or case.name in chosen:
                    sys.stdout.write(f"{case.name}: {record(docker, case, base)}\n")
                    sys.stdout.flush()
        finally:
            docker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

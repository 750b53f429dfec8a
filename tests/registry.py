"""A real registry on loopback, filled by skopeo."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Registry:
    """Debian's docker-registry over a folder of its own."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="bst-reg-"))
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        config = self.base / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.base / 'store'}}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the registry does not answer")

    def fill(self, archive: Path, name: str) -> str:
        """Push a docker-archive; gives the reference to pull."""
        reference = f"{self.host}/{name}"
        subprocess.run(
            [
                "skopeo",
                "copy",
                "--quiet",
                "--insecure-policy",
                "--dest-tls-verify=false",
                f"docker-archive:{archive}",
                f"docker://{reference}",
            ],
            check=True,
        )
        return reference

    def close(self) -> None:
        """End it and remove its folder."""
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.base, ignore_errors=True)

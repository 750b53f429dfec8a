"""A real registry on loopback, filled by skopeo."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
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

    def index(self, name: str, references: list[str]) -> str:
        """Push an index of images that are here already, one for each platform; gives the reference to pull."""
        entries = []
        for reference in references:
            manifest = self._request(reference, accept="application/vnd.docker.distribution.manifest.v2+json")
            configuration = json.loads(manifest)["config"]["digest"]
            document = json.loads(self._request(reference, kind="blobs", what=configuration))
            platform = {key: document[key] for key in ("architecture", "os", "variant") if key in document}
            entries.append(
                {
                    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                    "digest": "sha256:" + hashlib.sha256(manifest).hexdigest(),
                    "size": len(manifest),
                    "platform": platform,
                }
            )
        kind = "application/vnd.docker.distribution.manifest.list.v2+json"
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
        self._request(f"{self.host}/{name}", data=body, kind_of_data=kind)
        return f"{self.host}/{name}"

    def _request(
        self,
        reference: str,
        *,
        kind: str = "manifests",
        what: str = "",
        accept: str = "*/*",
        data: bytes | None = None,
        kind_of_data: str = "",
    ) -> bytes:
        name, _, tag = reference.removeprefix(f"{self.host}/").partition(":")
        request = urllib.request.Request(
            f"http://{self.host}/v2/{name}/{kind}/{what or tag}",
            data=data,
            headers={"Accept": accept, **({"Content-Type": kind_of_data} if data else {})},
            method="PUT" if data else "GET",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: bytes = answer.read()
            return found

    def close(self) -> None:
        """End it and remove its folder."""
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.base, ignore_errors=True)


def remote_digest(reference: str) -> str:
    """The digest of what a registry holds."""
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"], check=True, capture_output=True
    ).stdout
    return "sha256:" + hashlib.sha256(raw).hexdigest()

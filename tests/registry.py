"""A real registry on loopback, filled by skopeo."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
KINDS = (MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v2+json")
EMPTY = b"{}"


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Registry:
    """Debian's docker-registry over a folder of its own, for everybody or for one user with a password."""

    def __init__(self, user: str = "", password: str = "") -> None:
        self.base = Path(tempfile.mkdtemp(prefix="bst-reg-"))
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        config = self.base / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.base / 'store'}}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}'}}\n" + self._door(user, password)
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

    def _door(self, user: str, password: str) -> str:
        if not user:
            return ""
        # The registry takes bcrypt alone.
        script = "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))"
        word = subprocess.run(["perl", "-e", script, password], check=True, capture_output=True, text=True).stdout
        assert word.startswith("$2y$"), word
        (self.base / "htpasswd").write_text(f"{user}:{word}\n")
        return f"auth: {{htpasswd: {{realm: test, path: {self.base / 'htpasswd'}}}}}\n"

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


class Remote:
    """A repository of a registry, by its API."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.name, self._base = f"{registry.host}/{name}", f"http://{registry.host}/v2/{name}"

    def _ask(self, method: str, path: str, data: bytes | None = None, kind: str = "") -> tuple[Any, bytes]:
        url = path if path.startswith("http") else f"{self._base}/{path}"
        headers = {"Content-Type": kind or "application/octet-stream", "Accept": ", ".join(KINDS)}
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
            return answer.headers, answer.read()

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """A blob there; gives its descriptor."""
        place = self._ask("POST", "blobs/uploads/", b"")[0]["Location"]
        self._ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={sha256(data)}", data)
        return {"mediaType": kind, "digest": sha256(data), "size": len(data)}

    def artifact(self, tag: str, kind: str, content: bytes, subject: dict[str, Any] | None = None) -> dict[str, Any]:
        """An artifact there, under a tag; gives its descriptor."""
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": self.blob(EMPTY, "application/vnd.oci.empty.v1+json"),
            "layers": [self.blob(content, "text/plain")],
        } | ({"subject": subject} if subject else {})
        data = json.dumps(document).encode()
        self._ask("PUT", f"manifests/{tag}", data, MANIFEST)
        return {"mediaType": MANIFEST, "digest": sha256(data), "size": len(data), "artifactType": kind}

    def index(self, tag: str, *entries: dict[str, Any]) -> None:
        """An index there."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        self._ask("PUT", f"manifests/{tag}", json.dumps(document).encode(), INDEX)

    def manifest(self, name: str) -> bytes:
        """What is there under a tag or digest."""
        return self._ask("GET", f"manifests/{name}")[1]

    def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        try:
            self._ask("HEAD", f"blobs/{digest}")
        except urllib.error.HTTPError:
            return False
        return True


class Gate:
    """Stands before a registry, lets some bytes through, then breaks every connection and takes no more."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self.left: float = math.inf
        """Bytes of either direction that still go through; set it to open the gate again."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.left <= 0:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._behind))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                part = data[: int(min(len(data), max(self.left, 0)))]
                self.left -= len(data)
                target.sendall(part)
                if self.left <= 0:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the port."""
        self._listener.close()


def remote_digest(reference: str) -> str:
    """The digest of what a registry holds."""
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"], check=True, capture_output=True
    ).stdout
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def sha256(data: bytes) -> str:
    """The digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()

"""What docker prints, and the daemon's answers that it was made of: recorded once, replayed by a unit test.

Recording needs Docker's command line and a Docker daemon with the image `busybox:latest` (see `record`):

    python -m tests.docker_output /usr/local/bin/docker unix:///run/docker.sock
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "docker_output.json"
_CLI = Path(__file__).parents[1] / "src" / "bastide" / "cli" / "__main__.py"

PREPARE = """
volume create data
run -d --name web --label a=b --label com.example.some-key=1 -v /tmp:/host -v data:/data busybox sleep 10000
create --name idle -e A=1 --memory 64m busybox true
"""
CLEAN_UP = ("rm -f web idle", "volume rm data")

CASES = r"""
ps --format '{{.ID}} {{.Names}} {{.Image}} {{.Command}} {{.Status}} {{.Ports}}'
ps -a --format 'table {{.ID}}\t{{.Label "com.example.some-key"}}\t{{.Names}}\t{{.Mounts}}'
ps -a --format 'table {{.Names}}\t{{.RunningFor}}\t{{.CreatedAt}}\t{{.State}}\t{{.Networks}}'
ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.Command}} {{.Labels}}'
ps -aq
ps -aq --no-trunc
ps -a --format '{{.Names}}: {{.Size}} {{.LocalVolumes}}'
ps -n 1 -q
ps --filter name=web --format '{{.Names}}'
ps --filter x
ps --format '{{.Foo}}'
ps --format '{{.ID'
ps --format '{{foo .ID}}'
ps --format '{{json .Names}} {{json .Labels}}'
ps --format '{{upper .Names}} {{lower .Image}} {{title .State}}'
ps --format '{{if eq .State "running"}}up{{else}}down{{end}}'
ps --format '{{range split .Names "e"}}<{{.}}>{{end}}'
ps --format '{{printf "%-10s|%5s|%q" .Names .Image .State}}'
ps --format '{{truncate .ID 4}} {{len .Names}} {{pad .Names 2 2}}|'
ps --format '{{.ID | printf "%s-%s" .Names}}'
ps --format '{{with .Names}}{{.}}{{end}}{{/* c */}} {{- " x" -}} '
ps --format '{{$x := .Names}}{{$x}} {{println "a" 1}}'
ps --format '{{index (split .Names "e") 0}} {{join (split .Names "e") "/"}}'
ps --format '{{.Names}}\t{{.Image}}\nx'
images
images --digests
images -q
images -q --no-trunc
images --format json
images --format 'table {{.Repository}}\t{{.Tag}}\t{{.ID}}'
images --format '{{.CreatedAt}}|{{.Size}}|{{.VirtualSize}}|{{.SharedSize}}'
images nosuch
images busybox
history busybox
history --no-trunc busybox
history -q busybox
history --format json busybox
history -H=false busybox
volume ls --filter name=data
volume ls -q --filter name=data
volume ls --format json --filter name=data
volume inspect data
volume inspect nope
network ls
network ls -q
network ls --format json
network inspect none
network inspect nope
inspect idle
inspect idle busybox
inspect nope
inspect idle nope
inspect --type image idle
container inspect idle
image inspect busybox
image inspect idle
inspect -f '{{.State.Status}} {{.State.Health}}' web
inspect -f '{{.HostConfig.Binds}}|{{.HostConfig.PidsLimit}}|{{.Config.Entrypoint}}|{{.HostConfig.PortBindings}}' web
inspect -f '{{.Config.ExposedPorts}}|{{.Config.Healthcheck}}|{{.HostConfig.Sysctls}}' web
inspect -f '{{json .Config.Labels}} {{json .HostConfig.Binds}}' web
inspect -f '{{index .Config.Labels "a"}} {{.Config.Env}} {{.Config.Cmd}} {{.Config.Labels}}' web
inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}' web
inspect -f '{{if and .State.Running (not .State.Paused)}}yes{{end}}' web
inspect -f '{{.HostConfig.Memory | printf "%d"}} {{.HostConfig.OomKillDisable}}' idle
inspect -f '{{.Foo}}' web
inspect -f '{{.Id' web
inspect -f json idle
top web -o pid,comm
port web
port web 80
logs nope
stop nope
start nope1 nope2
kill -s FOO web
kill nope
restart nope
pause nope
unpause web
update web
wait nope
rm nope
rm -f nope
rm web
rmi nope
rmi -f nope
tag nope a
tag busybox A
pull A
system df --format '{{.Type}} {{.TotalCount}} {{.Active}}'
info -f '{{.Driver}} {{.OSType}} {{.Plugins.Volume}}'
version -f '{{.Server.Version}} {{.Server.Os}}'
network connect nope web
network disconnect nope web
volume rm nope
volume rm data
volume rm -f nope
cp web:/nope /tmp/nowhere
cp nope:/x /tmp
cp a b
cp web:/a web:/b
exec nope true
run --pull=never nope:1
run --foo
run -z
run --rm=maybe busybox
run --name
run -e
run -m 12q busybox
run --cpus abc busybox
run --mount foo busybox
run --mount type=tmpfs busybox
run --mount type=bind,foo=x busybox
run --no-healthcheck --health-cmd x busybox
run --rm --restart always busybox
run --restart foo:x busybox
run --stop-timeout x busybox
run -p 99999:1 busybox
run --pull=foo busybox
events --since x
foo
container foo
rename a
rm
ps extra
pull
"""


def lines(block: str) -> list[str]:
    """The command lines of a block."""
    return [line for line in block.strip().splitlines() if line]


def same(text: str) -> str:
    """What may differ, made equal: the program's name, and the page of help that follows a misuse.

    Not among the cases: what differs on purpose. `ps` has a column more; `rename` and `network rm` say in one line
    what docker says in two.
    """
    text = text.replace("docker", "bastide").replace("Docker", "bastide")
    return re.split(r"\n\n?(?:Usage:|Run '|See ')", text)[0].strip()


class Wire:
    """A unix socket whose every request is answered by `answer(method, target, request)`, raw, then closed."""

    def __init__(self, path: Path, answer: Callable[[str, str, bytes], bytes]) -> None:
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(channel,), daemon=True).start()

    def _talk(self, channel: socket.socket) -> None:
        with channel:
            request = b""
            while b"\r\n\r\n" not in request:
                request += channel.recv(65536)
            head, _, body = request.partition(b"\r\n\r\n")
            wanted = re.search(rb"content-length: (\d+)", head.lower())
            while len(body) < int(wanted[1] if wanted else 0):
                body += channel.recv(65536)
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            closing = head.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n", 1)
            channel.sendall(self._answer(method, target, closing + b"\r\n\r\n" + body))


def _forward(daemon: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as far:
        far.connect(daemon)
        far.sendall(request)
        blocks = []
        while block := far.recv(65536):
            blocks.append(block)
    return b"".join(blocks)


def record(docker: str, host: str) -> None:
    """Run every case with docker, then with bastide on the same daemon, and keep what both said."""
    daemon = host.removeprefix("unix://")
    environment = {**os.environ, "TZ": "UTC", "DOCKER_HOST": host, "COLUMNS": "80"}
    noted: list[list[str]] = []

    def answer(method: str, target: str, request: bytes) -> bytes:
        answered = _forward(daemon, request)
        noted.append([f"{method} {target}", answered.decode("latin-1")])
        return answered

    folder = Path(tempfile.mkdtemp())
    wire = Wire(folder / "s", answer)
    for line in (*CLEAN_UP, *lines(PREPARE)):
        subprocess.run([docker, *shlex.split(line)], env=environment, capture_output=True, check=False)
    kept: list[dict[str, Any]] = []
    for line in lines(CASES):
        words = shlex.split(line)
        now = time.time()
        theirs = subprocess.run([docker, *words], env=environment, capture_output=True, text=True, check=False)
        noted.clear()
        ours = {**environment, "BASTIDE_HOST": f"unix://{folder}/s"}
        subprocess.run([sys.executable, "-I", "-S", str(_CLI), *words], env=ours, capture_output=True, check=False)
        kept.append(
            {
                "line": line,
                "now": now,
                "code": theirs.returncode,
                "out": same(theirs.stdout),
                "err": same(theirs.stderr),
                "answers": list(noted),
            }
        )
    for line in CLEAN_UP:
        subprocess.run([docker, *shlex.split(line)], env=environment, capture_output=True, check=False)
    wire.close()
    GOLDEN.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    record(*sys.argv[1:])

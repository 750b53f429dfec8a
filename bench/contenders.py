"""The engines that are measured, each started in folders of its own and driven by its own command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bench.measure import BenchError, run
from bench.memory import Match

SOURCE = Path(__file__).resolve().parents[1] / "src"
SLEEPER = ("sleep", "infinity")


class Contender:
    """An engine with docker's verbs; another one states its differences.

    `daemons` and `monitors` tell its processes: those that are always there, and those that each container adds.
    """

    name = ""
    run_flags: tuple[str, ...] = ()
    daemons: tuple[Match, ...] = ()
    monitors: tuple[Match, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = dict(os.environ)
        self.sleeper = ""
        self.crowd: list[str] = []

    def start(self) -> None:
        """Make it ready to take commands."""

    def stop(self) -> None:
        """End what `start` began."""

    def command(self, *words: str) -> list[str]:
        """A command line for the engine's own program."""
        raise BenchError(f"{self.name} has no command line")

    def do(self, *words: str) -> str:
        """Run a command to its end, untimed; its stdout."""
        return run(self.command(*words), self.environment).strip()

    def run_true(self, image: str, network: str) -> list[str]:
        return self.command("run", "--rm", f"--network={network}", *self.run_flags, image, "true")

    def start_sleeper(self, image: str) -> str:
        return self.do("run", "-d", "--network=none", *self.run_flags, image, *SLEEPER).splitlines()[-1]

    def exec_true(self, container: str) -> list[str]:
        return self.command("exec", container, "true")

    def listing(self) -> list[str]:
        return self.command("ps")

    def pull(self, image: str) -> list[str]:
        return self.command("pull", "-q", image)

    def remove(self, *containers: str) -> None:
        if containers:
            self.do("rm", "-f", *containers)

    def remove_image(self, image: str) -> None:
        self.do("rmi", "-f", image)

    def build(self, context: Path, tag: str, *, cached: bool) -> list[str]:
        return self.command("build", "-q", f"--tag={tag}", *([] if cached else ["--no-cache"]), str(context))

    def bring(self, archive: Path, tag: str) -> None:
        """Make an image of a root file system."""
        self.do("import", str(archive), tag)

    def push(self, tag: str) -> list[str]:
        return self.command("push", "-q", tag)

    def save(self, image: str, target: Path) -> list[str]:
        return self.command("save", f"--output={target}", image)

    def load(self, archive: Path) -> list[str]:
        return self.command("load", "-q", f"--input={archive}")

    def change(self, image: str, script: str) -> str:
        """A container that runs and in which the script has run."""
        container = self.start_sleeper(image)
        self.do("exec", container, "sh", "-c", script)
        return container

    def commit(self, container: str, tag: str) -> list[str]:
        return self.command("commit", container, tag)


class Daemon:
    """A process of a contender that serves until it is told to end."""

    def __init__(self, argv: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    def wait_until(self, ready: Path, seconds: float = 60.0) -> None:
        """Return when the file (a socket, say) is there. Raises BenchError with the log's last line."""
        deadline = time.monotonic() + seconds
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = self.log.read_text(errors="replace").splitlines() or ["it said nothing"]
                raise BenchError(f"{self.log} tells why it does not serve: {lines[-1]}")
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Docker(Contender):
    """Debian's docker.io: its own dockerd and the containerd that this one starts."""

    name = "docker"
    daemons = (Match("dockerd"), Match("containerd"))
    monitors = (Match("containerd-shim"), Match("docker-proxy"))

    def start(self) -> None:
        self.folder.mkdir()
        socket = self.folder / "docker.sock"
        settings = self.folder / "daemon.json"
        settings.write_text("{}")
        self.environment |= {"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(self.folder / "client")}
        self.daemon = Daemon(
            ["dockerd", f"--config-file={settings}", f"--host=unix://{socket}"]
            + [f"--{option}={self.folder / option}" for option in ("data-root", "exec-root", "pidfile")],
            self.folder / "log",
            self.environment,
        )
        self.daemon.wait_until(socket)
        self.do("info")

    def stop(self) -> None:
        self.daemon.stop()

    def command(self, *words: str) -> list[str]:
        return ["/usr/bin/docker", *words]


class BuildKit(Contender):
    """The same dockerd asked to build by its BuildKit, which its client does when it is told to."""

    name = "docker buildkit"

    def __init__(self, engine: Docker) -> None:
        super().__init__(engine.folder)
        self.engine = engine

    def start(self) -> None:
        self.environment = self.engine.environment | {"DOCKER_BUILDKIT": "1"}

    def command(self, *words: str) -> list[str]:
        return self.engine.command(*words)


class Podman(Contender):
    """Debian's podman: no daemon; crun and netavark as Debian sets them up."""

    name = "podman"

    def start(self) -> None:
        self.folder.mkdir()
        # Its default limits ask for more than a restricted root may raise to.
        configuration = {
            "containers.conf": '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=65535:65535"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n'
            '[network]\nnetwork_backend = "netavark"\n',
            "storage.conf": f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/graph"\n'
            f'runroot = "{self.folder}/run"\n',
        }
        for name, text in configuration.items():
            (self.folder / name).write_text(text)
        self.environment |= {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
        }
        self.monitors = (Match("conmon", str(self.folder)),)

    def command(self, *words: str) -> list[str]:
        return ["podman", *words]

    def pull(self, image: str) -> list[str]:
        return self.command("pull", "-q", "--tls-verify=false", image)

    def push(self, tag: str) -> list[str]:
        return self.command("push", "-q", "--tls-verify=false", tag)

    def remove(self, *containers: str) -> None:
        if containers:
            self.do("rm", "-f", "-t", "0", *containers)


class Buildah(Podman):
    """Debian's buildah, with a store of its own; what it has no verb for is done by podman on that store."""

    name = "buildah"

    def command(self, *words: str) -> list[str]:
        return ["buildah", *words]

    def build(self, context: Path, tag: str, *, cached: bool) -> list[str]:
        # Without layers it would have no cache.
        *words, folder = super().build(context, tag, cached=cached)
        return [*words, "--layers", folder]

    def bring(self, archive: Path, tag: str) -> None:
        run(["podman", "import", "-q", str(archive), tag], self.environment)

    def save(self, image: str, target: Path) -> list[str]:
        return self.command("push", "-q", image, f"docker-archive:{target}")

    def load(self, archive: Path) -> list[str]:
        return self.command("pull", "-q", f"docker-archive:{archive}")

    def change(self, image: str, script: str) -> str:
        container = self.do("from", image)
        self.do("run", container, "--", "sh", "-c", script)
        return container

    def commit(self, container: str, tag: str) -> list[str]:
        return self.command("commit", "-q", container, tag)

    def remove(self, *containers: str) -> None:
        if containers:
            self.do("rm", *containers)


class Crun(Contender):
    """Bare crun on an overlay that is already mounted: the floor, with neither image, log nor monitor."""

    name = "crun"

    def start(self) -> None:
        self.folder.mkdir()
        self.bundle = self.folder / "bundle"
        self.started = 0

    def unpack(self, layers: Sequence[Path]) -> None:
        """Make the bundle from the image's layers."""
        root = self.bundle / "rootfs"
        root.mkdir(parents=True)
        for layer in layers:
            run(["tar", "--extract", f"--file={layer}", f"--directory={root}"], self.environment)
        run(["crun", "spec", f"--bundle={self.bundle}"], self.environment)
        for name, words in (("true", ("true",)), ("sleep", SLEEPER)):
            self._configure(name, words)

    def _configure(self, name: str, words: Sequence[str]) -> None:
        spec = json.loads((self.bundle / "config.json").read_text())
        spec["process"] |= {"args": list(words), "terminal": False, "rlimits": []}
        (self.bundle / f"{name}.json").write_text(json.dumps(spec))

    def command(self, *words: str) -> list[str]:
        return ["crun", f"--root={self.folder / 'state'}", *words]

    def _run(self, config: str, *flags: str) -> tuple[list[str], str]:
        self.started += 1
        name = f"bench-{self.started}"
        return self.command("run", *flags, f"--bundle={self.bundle}", f"--config={config}.json", name), name

    def run_true(self, image: str, network: str) -> list[str]:
        return self._run(str(self.bundle / "true"))[0]

    def start_sleeper(self, image: str) -> str:
        argv, name = self._run(str(self.bundle / "sleep"), "--detach")
        with open(os.devnull, "wb") as nowhere:
            # Not through pipes, which the container would keep open.
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=nowhere, stderr=nowhere, check=False)
        if done.returncode:
            raise BenchError(f"{' '.join(argv)}: exit status {done.returncode}")
        return name

    def listing(self) -> list[str]:
        return self.command("list")

    def remove(self, *containers: str) -> None:
        for name in containers:
            self.do("delete", "--force", name)


class Bastide(Contender):
    """This source: its daemon in folders of its own, its command line as the installed launcher starts it."""

    name = "bastide"

    settings: ClassVar[Mapping[str, str]] = {}
    """What its daemon is told beyond where its folders are."""

    def __init__(self, folder: Path, guest: Path) -> None:
        super().__init__(folder)
        self.guest = guest
        self.socket = folder / "run" / "bastide.sock"
        self.daemons = (Match("bastide.daemon", str(folder / "data")),)
        self.monitors = (Match("conmon", str(folder)), Match("vmm"), Match("qemu-system"))

    def start(self) -> None:
        self.folder.mkdir()
        settings = {
            "data_root": self.folder / "data",
            "run_root": self.folder / "run",
            "guest_root": self.guest,
            "bridge_subnet": "10.77.0.0/16",
            "pool_memory": "0",
            **self.settings,
        }
        self.environment |= {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.folder / "client"),
        }
        self.daemon = Daemon(
            [sys.executable, "-m", "bastide.daemon", "--config=/nonexistent"]
            + [f"--set={name}={value}" for name, value in settings.items()],
            self.folder.with_suffix(".log"),
            self.environment | {"PYTHONPATH": str(SOURCE)},
        )
        self.daemon.wait_until(self.socket)

    def serves(self) -> bool:
        return self.socket.exists()

    def emulator(self) -> str:
        """What runs its VMs, as the templates that it made tell; empty when it made none."""
        for manifest in self.folder.glob("data/templates/*/manifest"):
            machine = json.loads(manifest.read_bytes())["machine"]
            if not machine.get("architecture", "amd64").startswith("arm"):
                return f"QEMU {'.'.join(map(str, machine['version']))} with {machine['accelerator'].upper()}"
        return ""

    def stop(self) -> None:
        self.daemon.stop()

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(SOURCE / "bastide" / "cli" / "__main__.py"), *words]


class BastideVm(Contender):
    """The same daemon with `--isolation vm`: each container behind its own kernel."""

    name = "bastide vm"
    run_flags: tuple[str, ...] = ("--isolation=vm",)

    def __init__(self, engine: Bastide) -> None:
        super().__init__(engine.folder)
        self.engine = engine
        self.environment = engine.environment
        self.monitors = engine.monitors

    def start(self) -> None:
        if not self.engine.serves():
            raise BenchError("the daemon does not serve")

    def command(self, *words: str) -> list[str]:
        return self.engine.command(*words)

    def prewarm(self, image: str) -> None:
        """Have what VMs of an image are restored from."""
        self.do("system", "prewarm", image)

    def clone(self, container: str) -> str:
        """A second VM that goes on where the first one is; its id."""
        return self.do("clone", container)

    def disk(self) -> int:
        """Bytes that containers take on the disk."""
        folders = (self.engine.folder / "data" / part for part in ("containers", "erofs/snapshots"))
        files = (path for folder in folders for path in folder.rglob("*"))
        return sum(path.lstat().st_blocks * 512 for path in files)


class BastideFixed(BastideVm):
    """VMs that were told to put every program at the same addresses: emulators can then use a translation again."""

    name = "bastide vm fixed"
    run_flags = ("--isolation=vm", "--sysctl=kernel.randomize_va_space=0")


class BastideForeign(BastideVm):
    """VMs for another architecture, with an image of one small program."""

    name = "bastide arm64"
    run_flags = ("--isolation=vm", "--platform=linux/arm64")
    image = "bench-arm64"

    def start(self) -> None:
        super().start()
        program, archive = self.folder / "true", self.folder / "arm64.tar"
        source = self.folder / "true.c"
        source.write_text("int main(void) { return 0; }\n")
        run(["aarch64-linux-gnu-gcc", "-static", "-s", "-o", str(program), str(source)], self.environment)
        with tarfile.open(archive, "w") as tar:
            tar.add(program, "bin/true")
        self.do("import", "--platform=linux/arm64", "--change=ENV PATH=/bin", str(archive), self.image)

    def run_true(self, image: str, network: str) -> list[str]:
        return super().run_true(self.image, network)

    def prewarm(self, image: str) -> None:
        super().prewarm(self.image)


class BastideWarm(Bastide):
    """VMs again, by a daemon of their own that keeps some warm."""

    name = "bastide warm"
    run_flags = ("--isolation=vm",)
    settings: ClassVar[Mapping[str, str]] = {
        "pool_memory": str(1 << 30),
        "bridge": "bastide1",
        "bridge_subnet": "10.76.0.0/16",
        "address_pools": "10.92.0.0/16",
        "firewall_table": "bastide_warm",
        "cgroup_parent": "bastide-warm",
    }

    def prewarm(self, image: str) -> None:
        """Have VMs of an image wait."""
        self.do("system", "prewarm", image)
        self.ready()

    def cool(self) -> None:
        """Let go of every VM that waits."""
        self.do("system", "pool", "--memory", "0")

    def ready(self) -> None:
        """Return when as many VMs with an image wait as are wanted, and nothing else goes on."""
        for _ in range(600):
            state = json.loads(self.do("system", "pool", "--format", "json"))
            if all(shape["Ready"] >= max(shape["Wanted"], 1) for shape in state["Shapes"]):
                return
            time.sleep(0.1)
        raise BenchError("no VM is warm after a minute")

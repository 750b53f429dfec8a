"""The file server beside a VM, spoken to as a guest and a QEMU that were taken over would: ATTACKS 16, 34 and 36."""

from __future__ import annotations

import errno
import os
import random
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.contract import ninep
from tests.contract.conftest import GUEST
from tests.contract.ninep import Client, Refused, text

from bastide.hypervisor import shares
from bastide.hypervisor.plan import Plan
from bastide.model.process import Mount

UID = 2_000_000_777
HAND_OVER = (
    "import socket, sys, time; out = socket.socket(socket.AF_UNIX); out.connect(sys.argv[1]); "
    "socket.send_fds(out, [b'x'], [int(sys.argv[2])]); out.close(); time.sleep(1000)"
)


class Server:
    """The VM monitor with a file server, and a process in QEMU's place that hands over QEMU's end of the port."""

    def __init__(self, base: Path, mounts: list[Mount], saved: bytes = b"") -> None:
        bundle, meeting = base / "bundle", base / "meeting"
        bundle.mkdir()
        (bundle / shares.SAVED).write_bytes(saved)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(meeting))
        meeting.chmod(0o777)
        listener.listen()
        listener.settimeout(20)
        shares.check(mounts)
        plan = Plan(UID)
        plan.vendor(Path("agent.sock"))
        plan.agent()
        plan.stdio()
        end = plan.shares()
        shares.plan(plan, mounts)
        # In QEMU's place, it sees what QEMU would: an interpreter needs more, and the way to us.
        for path in ("/usr", "/lib", "/lib64", str(base)):
            plan.view(Path(path))
        plan.arguments("/usr/bin/python3", "-c", HAND_OVER, str(meeting), str(end))
        (bundle / "plan").write_text(plan.text())
        program = [GUEST / "vmm", "create", "--bundle", bundle, "--pid-file", bundle / "pid", "x"]
        quiet = subprocess.DEVNULL
        subprocess.run(program, check=True, stdin=quiet, stdout=quiet, stderr=quiet, timeout=20)
        self.monitor = int((bundle / "pid").read_text())
        self.handle = os.pidfd_open(self.monitor)
        self.fault = bundle / "fault"
        accepted, _ = listener.accept()
        _, (descriptor,), _, _ = socket.recv_fds(accepted, 1, 1)
        self.sock = socket.socket(fileno=descriptor)
        listener.close()
        accepted.close()
        self.pid, self.hypervisor = self._children()

    def _children(self) -> tuple[int, int]:
        pids = Path(f"/proc/{self.monitor}/task/{self.monitor}/children").read_text().split()
        by_program = {"python3" in Path(f"/proc/{pid}/cmdline").read_text(): int(pid) for pid in pids}
        return by_program[False], by_program[True]

    def ended(self, seconds: float = 20) -> bool:
        return bool(select.select([self.handle], [], [], seconds)[0])

    def close(self) -> None:
        """End it; repeatable."""
        if self.handle < 0:
            return
        if not self.ended(0):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            assert self.ended()
        self.sock.close()
        os.close(self.handle)
        self.handle = -1


@pytest.fixture
def base() -> Iterator[Path]:
    """A place that the process in QEMU's stead can reach."""
    path = Path(tempfile.mkdtemp(prefix="bastide-shares-"))
    path.chmod(0o755)
    (path / "rw").mkdir()
    (path / "rw" / "file").write_text("shared")
    (path / "rw" / "folder").mkdir()
    (path / "secret").write_text("secret")
    yield path
    shutil.rmtree(path)


def bind(source: Path, **changes: object) -> Mount:
    return Mount(**{"kind": "bind", "target": "/x", "source": source, "options": ("rbind",), **changes})  # type: ignore[arg-type]


@pytest.fixture
def server(base: Path) -> Iterator[Server]:
    """Three trees: 0 a directory, 1 the same one read-only, 2 a file."""
    made = Server(base, [bind(base / "rw"), bind(base / "rw", read_only=True), bind(base / "rw" / "file")])
    yield made
    made.close()


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.sock)


def refused(call: Callable[[], object]) -> str:
    """The error's name."""
    with pytest.raises(Refused) as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


# -- what it can do ----------------------------------------------------------------------------------


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_what_it_can_reach(server: Server, client: Client, base: Path) -> None:
    client.attach()
    found = status(server.pid)
    assert set(found["Uid"].split() + found["Gid"].split()) == {str(UID)}
    assert (found["Groups"], found["NoNewPrivs"], found["Seccomp"]) == ("", "1", "2")
    # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SETFCAP: no more, and none to be had.
    assert int(found["CapPrm"], 16) & ~sum(1 << bit for bit in (0, 1, 2, 3, 4, 6, 7, 31)) == 0
    assert int(found["CapBnd"], 16) == int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    for name in ("mnt", "net", "ipc", "uts", "pid", "cgroup"):
        assert Path(f"/proc/{server.pid}/ns/{name}").readlink() != Path(f"/proc/self/ns/{name}").readlink(), name
    lines = [line.split() for line in Path(f"/proc/{server.pid}/mountinfo").read_text().splitlines()]
    assert {line[4] for line in lines} == {"/", "/0", "/1", "/2"}
    assert all({"nosuid", "nodev", "noexec"} <= set(line[5].split(",")) for line in lines)
    assert {line[4] for line in lines if "ro" in line[5].split(",")} == {"/", "/1"}
    assert sorted(os.listdir(f"/proc/{server.pid}/root")) == ["0", "1", "2"]
    targets = [str(entry.readlink()) for entry in Path(f"/proc/{server.pid}/fd").iterdir()]
    assert {path for path in targets if not path.startswith(("socket:", "pipe:"))} == {
        "/",
        "/dev/null",
        str(base / "bundle" / shares.SAVED),
    }


def test_it_ends_with_the_monitor(server: Server) -> None:
    handle = os.pidfd_open(server.pid)
    signal.pidfd_send_signal(server.handle, signal.SIGKILL)
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)


def test_the_vm_ends_with_it(server: Server) -> None:
    os.kill(server.pid, signal.SIGKILL)
    assert server.ended()
    assert server.fault.read_text() == "the file server was killed\n"


def test_it_ends_with_the_hypervisor(server: Server) -> None:
    handle = os.pidfd_open(server.pid)
    os.kill(server.hypervisor, signal.SIGKILL)
    assert server.ended()
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)


# -- names that lead out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["..", ".", "", "/", "a/b", "../secret", "/etc/passwd", b"file\0x", "x" * 256, b"\xff/.."]
)
def test_names_that_are_none(client: Client, base: Path, name: str | bytes) -> None:
    root = client.attach()
    directory = client.walk(root, "0")
    before = sorted(path.name for path in base.rglob("*"))
    refused(lambda: client.walk(root, name))
    refused(lambda: client.walk(directory, name))
    refused(lambda: client.create(directory, name))  # type: ignore[arg-type]
    number = struct.pack("<I", directory)
    bodies = {
        ninep.TMKDIR: number + text(name) + struct.pack("<II", 0o755, 0),
        ninep.TSYMLINK: number + text(name) + text("target") + struct.pack("<I", 0),
        ninep.TMKNOD: number + text(name) + struct.pack("<IIII", stat.S_IFIFO | 0o644, 0, 0, 0),
        ninep.TUNLINKAT: number + text(name) + struct.pack("<I", 0x200),
        ninep.TLINK: number + struct.pack("<I", client.walk(directory, "file")) + text(name),
        ninep.TRENAMEAT: number + text("file") + number + text(name),
    }
    for kind, body in bodies.items():
        refused(lambda kind=kind, body=body: client.ask(kind, body))  # type: ignore[misc]
    assert sorted(path.name for path in base.rglob("*")) == before


def test_links_are_not_followed(client: Client, base: Path) -> None:
    (base / "rw" / "out").symlink_to(base)
    (base / "rw" / "secret").symlink_to(base / "secret")
    directory = client.walk(client.attach(), "0")
    assert refused(lambda: client.walk(directory, "out", "secret")) == "ENOENT"
    link = client.walk(directory, "secret")
    assert refused(lambda: client.open(link)) == "ELOOP"
    assert refused(lambda: client.create(directory, "secret")) == "ELOOP"
    # Attributes are the link's own.
    client.ask(ninep.TSETATTR, struct.pack("<IIIIIQQQQQ", link, 6, 0, 5, 5, 0, 0, 0, 0, 0))
    refused(lambda: client.ask(ninep.TSETATTR, struct.pack("<IIIIIQQQQQ", link, 8, 0, 0, 0, 1, 0, 0, 0, 0)))
    assert (base / "secret").stat().st_uid == 0
    assert (base / "secret").read_text() == "secret"
    assert (base / "rw" / "secret").lstat().st_uid == 5


def test_links_that_are_swapped_meanwhile(client: Client, base: Path) -> None:
    """A name that is a directory now and a link out of the tree a moment later (CVE-2018-15664)."""
    folder, link, name = base / "rw" / "a", base / "rw" / "b", base / "rw" / "name"
    folder.mkdir()
    (folder / "secret").write_text("harmless")
    link.symlink_to(base)
    folder.rename(name)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            name.rename(folder)
            link.rename(name)
            name.rename(link)
            folder.rename(name)

    swapping = threading.Thread(target=swap)
    swapping.start()
    found = set()
    try:
        directory = client.walk(client.attach(), "0")
        for _ in range(2000):
            try:
                fid = client.walk(directory, "name", "secret")
                found.add(client.read(client.open(fid)))
                client.clunk(fid)
            except Refused:
                continue
    finally:
        done.set()
        swapping.join()
    assert found == {b"harmless"}


def test_nothing_but_the_trees(client: Client) -> None:
    root = client.attach()
    assert client.names(root) == [".", "..", "0", "1", "2"]
    assert client.names(client.walk(root, "0")) == [".", "..", "file", "folder"]
    assert client.read(client.open(client.walk(root, "2"))) == b"shared"
    for name in ("proc", "old", "3"):
        assert refused(lambda name=name: client.walk(root, name)) == "ENOENT"  # type: ignore[misc]
    assert refused(lambda: client.create(root, "new")) == "EROFS"


def test_devices_and_pipes(client: Client, base: Path) -> None:
    os.mkfifo(base / "rw" / "pipe")
    os.mknod(base / "rw" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    directory = client.walk(client.attach(), "0")
    number = struct.pack("<I", directory)
    device = text("sda") + struct.pack("<IIII", stat.S_IFBLK | 0o666, 8, 0, 0)
    assert refused(lambda: client.ask(ninep.TMKNOD, number + device)) == "EPERM"
    client.ask(ninep.TMKNOD, number + text("whiteout") + struct.pack("<IIII", stat.S_IFCHR, 0, 0, 0))
    for name in ("pipe", "null"):
        fid = client.walk(directory, name)
        assert refused(lambda fid=fid: client.open(fid, os.O_RDWR)) == "ENOTSUP"  # type: ignore[misc]
        refused(lambda name=name: client.create(directory, name))  # type: ignore[misc]


# -- read-only ---------------------------------------------------------------------------------------


def test_read_only_whatever_is_asked(client: Client, base: Path) -> None:
    """The mount of the host refuses it: no flag of the guest's is looked at."""
    root = client.attach()
    closed, opened = client.walk(root, "1"), client.walk(root, "0")
    file, same = client.walk(closed, "file"), client.walk(opened, "file")
    before = {path: path.lstat() for path in (base / "rw").rglob("*")}
    number = struct.pack("<I", closed)
    assert client.read(client.open(client.walk(file))) == b"shared"
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        assert refused(lambda flags=flags: client.open(client.walk(file), flags)) == "EROFS"  # type: ignore[misc]
    assert refused(lambda: client.create(closed, "new")) == "EROFS"
    for valid in (1, 2, 4, 8, 0x10, 0x20, 0x1B0, 0x1FF):
        body = struct.pack("<IIIIIQQQQQ", file, valid, 0o777, 1, 1, 0, 0, 0, 0, 0)
        assert refused(lambda body=body: client.ask(ninep.TSETATTR, body)) == "EROFS"  # type: ignore[misc]
    for kind, body in {
        ninep.TMKDIR: number + text("new") + struct.pack("<II", 0o755, 0),
        ninep.TSYMLINK: number + text("new") + text("target") + struct.pack("<I", 0),
        ninep.TMKNOD: number + text("new") + struct.pack("<IIII", stat.S_IFREG | 0o644, 0, 0, 0),
        ninep.TUNLINKAT: number + text("file") + struct.pack("<I", 0),
    }.items():
        assert refused(lambda kind=kind, body=body: client.ask(kind, body)) == "EROFS"  # type: ignore[misc]
    attribute = client.walk(file)
    client.ask(ninep.TXATTRCREATE, struct.pack("<I", attribute) + text("user.x") + struct.pack("<QI", 1, 0))
    client.write(attribute, b"x")
    assert refused(lambda: client.clunk(attribute)) == "EROFS"
    for new, old in ((closed, same), (opened, file)):
        link = struct.pack("<II", new, old) + text("new")
        assert refused(lambda link=link: client.ask(ninep.TLINK, link)) in ("EXDEV", "EROFS")  # type: ignore[misc]
    for one, other in ((closed, opened), (opened, closed)):
        body = struct.pack("<I", one) + text("file") + struct.pack("<I", other) + text("new")
        assert refused(lambda body=body: client.ask(ninep.TRENAMEAT, body)) in ("EXDEV", "EROFS")  # type: ignore[misc]
    assert {path: path.lstat().st_ctime_ns for path in (base / "rw").rglob("*")} == {
        path: entry.st_ctime_ns for path, entry in before.items()
    }


# -- messages that are wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 6, 65537, 0xFFFFFFFF])
def test_impossible_lengths(server: Server, client: Client, size: int) -> None:
    server.sock.sendall(struct.pack("<IBH", size, ninep.TREAD, 1))
    with pytest.raises(EOFError):
        client.receive()
    assert server.ended()
    assert "impossible length" in server.fault.read_text()


def test_messages_at_random(server: Server, client: Client, base: Path) -> None:
    """Answered one and all, whatever they hold; nothing outside the trees is touched."""
    generator = random.Random(9)
    numbers = [client.attach(), client.walk(client.attach(), "0"), client.walk(client.attach(), "0", "file"), 77]
    numbers.append(client.open(client.walk(numbers[1], "file"), os.O_RDWR))
    kinds = [kind for kind in range(256) if kind != ninep.TVERSION]
    for _ in range(6000):
        body = b"".join(struct.pack("<I", generator.choice(numbers)) for _ in range(generator.randrange(3)))
        if generator.random() < 0.4:
            body += text(generator.choice(["file", "..", "x", "folder"]))
        body += generator.randbytes(generator.randrange(60))
        client.send(generator.choice(kinds), body, tag=generator.randrange(65535))
        client.receive()
    assert (base / "secret").read_text() == "secret"
    assert {path.name for path in base.iterdir()} == {"rw", "secret", "bundle", "meeting"}
    again = Client(server.sock)
    assert again.names(again.attach()) == [".", "..", "0", "1", "2"]


def test_lengths_inside_that_are_too_long(client: Client) -> None:
    root = client.attach()
    file = client.open(client.walk(root, "0", "file"), os.O_RDWR)
    refused(lambda: client.ask(ninep.TWRITE, struct.pack("<IQI", file, 0, 0xFFFFFFFF) + b"x"))
    refused(lambda: client.ask(ninep.TWALK, struct.pack("<IIH", root, 99, 0xFFFF)))
    refused(lambda: client.ask(ninep.TWALK, struct.pack("<IIHH", root, 99, 1, 0xFFFF)))
    assert client.read(file, 0, 0xFFFFFFFF) == b"shared"
    assert client.read(file, 1 << 60) == b""
    refused(lambda: client.read(file, 1 << 63))
    value = client.walk(root, "0", "file")
    body = struct.pack("<I", value) + text("user.x")
    assert refused(lambda: client.ask(ninep.TXATTRCREATE, body + struct.pack("<QI", 1 << 40, 0))) == "E2BIG"
    client.ask(ninep.TXATTRCREATE, body + struct.pack("<QI", 4, 0))
    refused(lambda: client.write(value, b"12345"))
    refused(lambda: client.write(value, b"1", 3))


def test_more_files_than_it_may_hold(server: Server, client: Client) -> None:
    root = client.attach()
    lines = Path(f"/proc/{server.pid}/limits").read_text().splitlines()
    limit = int(next(line for line in lines if "open files" in line).split()[3])

    def hold() -> None:
        for _ in range(limit + 1):
            client.walk(root)

    assert refused(hold) == "EMFILE"
    again = Client(server.sock)
    assert again.names(again.attach()) == [".", "..", "0", "1", "2"]


def test_many_requests_at_once(client: Client) -> None:
    directory = client.walk(client.attach(), "0")
    file = client.create(directory, "big")
    client.write(file, os.urandom(50000))

    def send() -> None:
        for tag in range(400):
            client.send(ninep.TREAD, struct.pack("<IQI", file, tag, 100), tag)
        for tag in range(400, 500):
            client.send(ninep.TFLUSH, struct.pack("<H", tag - 400), tag)

    sending = threading.Thread(target=send)
    sending.start()
    answers = {client.receive()[1] for _ in range(500)}
    sending.join()
    assert answers == set(range(500))


# -- files stay themselves ---------------------------------------------------------------------------


def test_files_are_held_whatever_their_names_become(client: Client, base: Path) -> None:
    directory = client.walk(client.attach(), "0")
    inner = client.walk(directory, "folder")
    file = client.open(client.walk(directory, "file"), os.O_RDWR)
    (base / "rw" / "folder").rename(base / "rw" / "moved")
    (base / "rw" / "file").unlink()
    client.create(inner, "new")
    assert (base / "rw" / "moved" / "new").exists()
    assert client.read(file) == b"shared"
    client.write(file, b"still")
    assert client.read(file) == b"stilld"


def test_owners_are_who_asks(client: Client, base: Path) -> None:
    directory = client.walk(client.attach(1234), "0")
    client.create(directory, "theirs", gid=4321)
    made = (base / "rw" / "theirs").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (1234, 4321, 0o644)


def test_two_file_systems_never_look_like_one(base: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", base / "rw" / "folder"], check=True)
    server = Server(base, [bind(base / "rw"), bind(base / "rw" / "folder")])
    try:
        client = Client(server.sock)
        root = client.attach()
        found = []
        for path in (("0",), ("0", "folder"), ("1",)):
            fid = client.walk(root, *path)
            found.append(client.ask(ninep.TGETATTR, struct.pack("<IQ", fid, 0x7FF))[8:21])
        assert found[1] == found[2] != found[0]
    finally:
        server.close()
        subprocess.run(["umount", base / "rw" / "folder"], check=True)


# -- what is held, from one server to the next -------------------------------------------------------


def again(base: Path, saved: bytes) -> Server:
    """Another server of the directory, which finds what one before it wrote down."""
    for path in (base / "meeting", base / "bundle"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return Server(base, [bind(base / "rw"), bind(base / "rw", read_only=True)], saved)


def test_what_is_held_is_taken_up(server: Server, client: Client, base: Path) -> None:
    root = client.attach(1000)
    folder = client.walk(root, "0", "folder")
    file = client.open(client.walk(root, "0", "file"), os.O_RDWR)
    closed = client.walk(root, "1")
    gone = client.create(folder, "gone")
    (base / "rw" / "folder").rename(base / "rw" / "moved")
    client.ask(ninep.TSAVE, b"", 0xFFFF)
    (base / "rw" / "moved" / "gone").unlink()
    server.close()
    second = again(base, (base / "bundle" / shares.SAVED).read_bytes())
    try:
        client = Client(second.sock, size=0)
        client.write(file, b"again")
        assert client.read(file) == b"againd"
        client.ask(ninep.TLCREATE, struct.pack("<I", folder) + text("new") + struct.pack("<III", os.O_RDWR, 0o644, 0))
        assert (base / "rw" / "moved" / "new").stat().st_uid == 1000
        assert refused(lambda: client.ask(ninep.TMKDIR, struct.pack("<I", closed) + text("x") + bytes(8))) == "EROFS"
        assert refused(lambda: client.read(gone)) == "EBADF"
        client.clunk(gone)
    finally:
        second.close()


def test_a_saved_state_that_lies(base: Path) -> None:
    (base / "rw" / "out").symlink_to(base)
    paths = [b"/0/../secret", b"/0/out/secret", b"/../bundle/plan", b"0/file", b"", b"/proc/1/root", b"/0/fi\0le"]
    saved = struct.pack("<I", 65536)
    for number, path in enumerate(paths):
        saved += struct.pack("<IIiI", number, 0, os.O_RDWR, len(path)) + path
    saved += struct.pack("<IIiI", 77, 0, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 7) + b"/0/file"
    for tail in (b"", b"x", struct.pack("<IIiI", 9, 0, 0, 0xFFFFFFFF), random.Random(3).randbytes(4000)):
        server = again(base, saved + tail)
        try:
            client = Client(server.sock, size=0)
            assert {refused(partial(client.read, number)) for number in range(len(paths))} == {"EBADF"}
            assert client.read(77) == b"shared"
        finally:
            server.close()


def test_the_guest_may_ask_for_it_at_any_time(server: Server, client: Client, base: Path) -> None:
    root = client.attach()
    for _ in range(200):
        client.walk(root, "0", "file")
        client.ask(ninep.TSAVE, b"anything", 5)
    assert (base / "bundle" / shares.SAVED).stat().st_size < 10000
    assert client.names(root) == [".", "..", "0", "1", "2"]

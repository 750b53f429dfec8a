"""conmon's sockets and files, played by the test."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bastide.host.processes import Spawner
from bastide.model.errors import NotFound
from bastide.model.process import TerminalSize
from bastide.runtime import Stream
from bastide.runtime import monitor as module
from bastide.runtime.monitor import Launch, Monitor, Refused, exit_code


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    spawner = Spawner()
    yield Monitor(Path("/usr/bin/crun"), ["--root", "/run/x"], spawner)
    spawner.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        folder = os.open(tmp_path, os.O_PATH)
        made.bind(f"/proc/self/fd/{folder}/attach")
        os.close(folder)
        made.listen()
        yield made


def test_command_line(monitor: Monitor, golden: Callable[[str, str], None]) -> None:
    plain = Launch(id="c1", directory=Path("/run/c1"))
    full = Launch(
        id="c2",
        directory=Path("/run/c2"),
        log_path=Path("/var/log/c2"),
        terminal=True,
        stdin=True,
        keep_stdin=False,
    )
    lines = [" ".join(monitor._command(launch, "conmon")) for launch in (plain, full)]
    golden("oci/conmon.txt", "\n".join(lines).replace(" --", "\n    --") + "\n")


async def test_output_is_told_apart(monitor: Monitor, listener: socket.socket, tmp_path: Path) -> None:
    stdio = await monitor.attach(tmp_path)
    peer, _ = listener.accept()
    for packet in (b"\x02out", b"\x03err", b"\x09noise", b"\x02"):
        peer.send(packet)
    peer.close()
    assert [piece async for piece in stdio.output()] == [(Stream.STDOUT, b"out"), (Stream.STDERR, b"err")]
    await stdio.close()


async def test_input_fits_the_buffer(monitor: Monitor, listener: socket.socket, tmp_path: Path) -> None:
    stdio = await monitor.attach(tmp_path)
    peer, _ = listener.accept()
    await stdio.write(b"x" * 20_000)
    await stdio.close_stdin()
    sizes = []
    while packet := peer.recv(1 << 16):
        sizes.append(len(packet))
    assert sizes == [8192, 8192, 3616]
    peer.close()
    with pytest.raises(NotFound):
        await stdio.write(b"late")
    await stdio.close()
    await stdio.close()


async def test_closing_ends_a_reader(monitor: Monitor, listener: socket.socket, tmp_path: Path) -> None:
    stdio = await monitor.attach(tmp_path)

    async def read() -> list[tuple[Stream, bytes]]:
        return [piece async for piece in stdio.output()]

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    await stdio.close()
    async with asyncio.timeout(2):
        assert await reading == []


async def test_nobody_listens(monitor: Monitor, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await monitor.attach(tmp_path)
    with pytest.raises(NotFound):
        await monitor.attach(tmp_path / "absent")


async def test_long_paths(monitor: Monitor, tmp_path: Path) -> None:
    place = tmp_path / ("x" * 200)
    place.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        folder = os.open(place, os.O_PATH)
        made.bind(f"/proc/self/fd/{folder}/attach")
        made.listen()
        os.close(folder)
        await (await monitor.attach(place)).close()


def test_control(monitor: Monitor, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        monitor.resize(tmp_path, TerminalSize(rows=1, columns=2))
    os.mkfifo(tmp_path / "ctl")
    with pytest.raises(NotFound):
        monitor.reopen_log(tmp_path)
    reader = os.open(tmp_path / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    monitor.resize(tmp_path, TerminalSize(rows=24, columns=80))
    monitor.reopen_log(tmp_path)
    assert os.read(reader, 100) == b"1 24 80\n2 0 0\n"
    os.close(reader)


@pytest.mark.parametrize(("text", "code"), [("7", 7), ("137", 137), ("", None), ("x", None)])
def test_exit_file(tmp_path: Path, text: str, code: int | None) -> None:
    assert exit_code("c", tmp_path) is None
    (tmp_path / "c").write_text(text)
    assert exit_code("c", tmp_path) == code


async def test_a_pid_that_means_another_process(monitor: Monitor, tmp_path: Path) -> None:
    (tmp_path / "conmon.pid").write_text(str(os.getpid()))
    assert monitor.monitor("no such container", tmp_path) is None
    assert await monitor.wait("no such container", tmp_path) == module.UNKNOWN_EXIT


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "conmon"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            """printf '{"data": -1, "message": "it \\\\"failed\\\\""}\\n' > /proc/self/fd/$_OCI_SYNCPIPE""",
            'it "failed"',
        ),
        ("exit 1", "conmon ended"),
        ("printf 'nonsense\\n' > /proc/self/fd/$_OCI_SYNCPIPE; sleep 100", "nonsense"),
    ],
)
async def test_failures(
    monitor: Monitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setattr(module, "find", lambda: script(tmp_path, body))
    with pytest.raises(Refused, match=words):
        await monitor.create(Launch(id="c", directory=tmp_path))


async def test_success(monitor: Monitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """printf '{"data": 42}\\n' > /proc/self/fd/$_OCI_SYNCPIPE; sleep 0.1; echo 3 > c"""
    monkeypatch.setattr(module, "find", lambda: script(tmp_path, body))
    assert await monitor.create(Launch(id="c", directory=tmp_path)) == 42
    codes = await asyncio.gather(*(monitor.wait("c", tmp_path) for _ in range(3)))
    assert codes == [3, 3, 3]
    await monitor.forget("c", tmp_path)
    await monitor.forget("c", tmp_path)

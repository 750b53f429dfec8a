"""Streams: frames taken apart, detach keys, terminals and signals against a pretended daemon."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.pretender import Pretender, frame, hijack, reply

import bastide
from bastide.cli import terminal
from bastide.cli.grammar import CommandError, UsageError
from bastide.cli.streams import Frames, Pump
from bastide.client import Connection

PROGRAM = [sys.executable, "-I", "-S", str(Path(bastide.__file__).parent / "cli" / "__main__.py")]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000])
def test_frames_in_pieces_of_any_size(capfd: pytest.CaptureFixture[str], size: int) -> None:
    data = frame(1, b"out1") + frame(2, b"err") + frame(1, b"") + frame(1, b"out2")
    frames = Frames()
    for start in range(0, len(data), size):
        frames.feed(data[start : start + size])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("out1out2", "err")


def test_an_error_in_the_stream() -> None:
    with pytest.raises(CommandError, match="error from daemon in stream: gone"):
        Frames().feed(frame(3, b"gone"))


@pytest.mark.parametrize(
    ("word", "expected"), [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-@", b"\0"), ("ctrl-[", b"\x1b")]
)
def test_detach_keys(word: str, expected: bytes) -> None:
    assert terminal.keys(word) == expected


@pytest.mark.parametrize("word", ["", "ctrl-", "ctrl-ä", "ab", "ctrl-1"])
def test_bad_detach_keys(word: str) -> None:
    with pytest.raises(UsageError, match="invalid detach keys"):
        terminal.keys(word)


@pytest.mark.parametrize(
    ("typed", "sent", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"ab\x10", b"\x11"], b"ab", True),
        ([b"ab\x10", b"x"], b"ab\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_typing_the_detach_keys(typed: list[bytes], sent: bytes, detached: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pump = Pump(Connection(ours), lambda data: None, stdin=True, keys=b"\x10\x11")
        assert b"".join(pump._without_keys(piece) for piece in typed) == sent
        assert pump.detached is detached


CREATED = {"Id": "c" * 64, "Warnings": ["mind the gap"]}


def prepared(pretender: Pretender, talk: object, status: int = 0) -> None:
    one = f"/containers/{'c' * 64}"
    pretender.answers |= {
        "POST /containers/create": reply(CREATED, 201),
        f"POST {one}/attach": hijack(talk),  # type: ignore[arg-type]
        f"POST {one}/wait": reply({"StatusCode": status}),
        f"POST {one}/start": reply(None, 204),
        f"POST {one}/kill": reply(None, 204),
        f"POST {one}/resize": reply(None, 200),
    }


def test_run_carries_standard_input_to_its_end(pretender: Pretender) -> None:
    got = bytearray()

    def talk(channel: socket.socket) -> None:
        while data := channel.recv(65536):
            got.extend(data)
        channel.sendall(frame(1, b"done\n") + frame(2, b"warned\n"))

    prepared(pretender, talk, 7)
    data = os.urandom(3_000_000)
    done = subprocess.run([*PROGRAM, "run", "-i", "image", "cat"], input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (7, b"done\n")
    assert done.stderr == b"WARNING: mind the gap\nwarned\n"
    assert bytes(got) == data
    assert pretender.last("POST /containers/create").json["StdinOnce"] is True


def test_both_ways_at_once_do_not_block_each_other(pretender: Pretender) -> None:
    def talk(channel: socket.socket) -> None:
        while data := channel.recv(65536):
            channel.sendall(frame(1, data))

    prepared(pretender, talk)
    data = os.urandom(8_000_000)
    done = subprocess.run([*PROGRAM, "run", "-i", "image"], input=data, capture_output=True, timeout=60, check=False)
    assert done.stdout == data


def test_signals_are_proxied(pretender: Pretender) -> None:
    ready, asked = threading.Event(), f"POST /containers/{'c' * 64}/kill"

    def talk(channel: socket.socket) -> None:
        ready.set()
        deadline = time.monotonic() + 20
        while asked not in pretender.asked() and time.monotonic() < deadline:
            time.sleep(0.01)

    prepared(pretender, talk, 143)
    process = subprocess.Popen([*PROGRAM, "run", "image"], stdin=subprocess.DEVNULL)
    assert ready.wait(20)
    start = f"POST /containers/{'c' * 64}/start"
    while start not in pretender.asked():
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert pretender.last(asked).query == {"signal": [str(int(signal.SIGTERM))]}


def test_a_terminal_is_raw_and_comes_back(pretender: Pretender) -> None:
    typed = bytearray()

    def talk(channel: socket.socket) -> None:
        channel.sendall(b"prompt# ")
        while data := channel.recv(100):
            typed.extend(data)

    prepared(pretender, talk)
    process, descriptor = pty.fork()
    if process == 0:
        os.execv(PROGRAM[0], [*PROGRAM, "run", "-it", "image", "sh"])
    seen = b""
    while b"prompt# " not in seen:
        seen += os.read(descriptor, 100)
    time.sleep(0.2)
    os.write(descriptor, b"\x03ls\r\x10\x11")  # ^C goes through, then the detach keys
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    os.close(descriptor)
    assert bytes(typed) == b"\x03ls\r"
    body = pretender.last("POST /containers/create").json
    assert (body["Tty"], body["OpenStdin"], body["AttachStdin"]) == (True, True, True)


def test_a_terminal_is_needed_for_one(pretender: Pretender) -> None:
    done = subprocess.run([*PROGRAM, "run", "-it", "image"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"bastide: the input device is not a TTY\n")
    assert pretender.requests == []

"""9P2000.L from the guest's side, as a hostile guest would speak it: messages are made by hand, nothing is checked."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

# linux/include/net/9p/9p.h
RLERROR, TSTATFS, TLOPEN, TLCREATE, TSYMLINK, TMKNOD, TREADLINK, TGETATTR, TSETATTR = 7, 8, 12, 14, 16, 18, 22, 24, 26
TXATTRWALK, TXATTRCREATE, TREADDIR, TFSYNC, TLOCK, TGETLOCK, TLINK, TMKDIR = 30, 32, 40, 50, 52, 54, 70, 72
TRENAMEAT, TUNLINKAT, TVERSION, TATTACH, TFLUSH, TWALK, TREAD, TWRITE, TCLUNK = (
    74,
    76,
    100,
    104,
    108,
    110,
    116,
    118,
    120,
)
TSAVE = 250
"""Of the guest agent alone: guest/PROTOCOL.md."""
NOFID = 0xFFFFFFFF


def text(value: str | bytes) -> bytes:
    """A text with its length."""
    data = os.fsencode(value)
    return struct.pack("<H", len(data)) + data


class Refused(OSError):
    """The server answered with an error."""


class Client:
    """One connection. `ask` sends a message and gives the body of the answer."""

    def __init__(self, sock: socket.socket, size: int = 65536) -> None:
        self.sock = sock
        self._next = 0
        sock.settimeout(20)
        if size:
            self.ask(TVERSION, struct.pack("<I", size) + text("9P2000.L"), tag=0xFFFF)

    def send(self, kind: int, body: bytes, tag: int = 1) -> None:
        self.sock.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)

    def receive(self) -> tuple[int, int, bytes]:
        """Type, tag and body. Raises EOFError when the server has ended."""
        size, kind, tag = struct.unpack("<IBH", self._exactly(7))
        return kind, tag, self._exactly(size - 7)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                piece = self.sock.recv(length - len(data))
            except ConnectionError:
                piece = b""
            if not piece:
                raise EOFError
            data += piece
        return data

    def ask(self, kind: int, body: bytes, tag: int = 1) -> bytes:
        self.send(kind, body, tag)
        answer, _, data = self.receive()
        if answer == RLERROR:
            number = struct.unpack("<I", data)[0]
            raise Refused(number, errno.errorcode.get(number, str(number)))
        assert answer == kind + 1
        return data

    def number(self) -> int:
        """A fid that was not used yet."""
        self._next += 1
        return self._next

    def attach(self, uid: int = 0) -> int:
        fid = self.number()
        self.ask(TATTACH, struct.pack("<II", fid, NOFID) + text("") + text("/") + struct.pack("<I", uid))
        return fid

    def walk(self, fid: int, *names: str | bytes) -> int:
        """A new fid for the path. Raises Refused, also when only a part of it is there."""
        new = self.number()
        body = struct.pack("<IIH", fid, new, len(names)) + b"".join(text(name) for name in names)
        done = struct.unpack("<H", self.ask(TWALK, body)[:2])[0]
        if done < len(names):
            raise Refused(errno.ENOENT, "walked a part of it")
        return new

    def open(self, fid: int, flags: int = os.O_RDONLY) -> int:
        self.ask(TLOPEN, struct.pack("<II", fid, flags))
        return fid

    def read(self, fid: int, offset: int = 0, count: int = 4096) -> bytes:
        return self.ask(TREAD, struct.pack("<IQI", fid, offset, count))[4:]

    def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        answer = self.ask(TWRITE, struct.pack("<IQI", fid, offset, len(data)) + data)
        return int(struct.unpack("<I", answer)[0])

    def create(self, directory: int, name: str, flags: int = os.O_RDWR, mode: int = 0o644, gid: int = 0) -> int:
        fid = self.walk(directory)
        self.ask(TLCREATE, struct.pack("<I", fid) + text(name) + struct.pack("<III", flags, mode, gid))
        return fid

    def clunk(self, fid: int) -> None:
        self.ask(TCLUNK, struct.pack("<I", fid))

    def names(self, fid: int) -> Sequence[str]:
        """The names in a directory."""
        opened, found, offset = self.open(self.walk(fid)), [], 0
        while data := self.ask(TREADDIR, struct.pack("<IQI", opened, offset, 8192))[4:]:
            at = 0
            while at < len(data):
                offset, _, length = struct.unpack_from("<QBH", data, at + 13)
                found.append(os.fsdecode(data[at + 24 : at + 24 + length]))
                at += 24 + length
        self.clunk(opened)
        return sorted(found)

"""A small root file system for contract tests: a static busybox and its links."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests import foreign

APPLETS = (
    "sh true false echo cat sleep ls id env grep tty stty hostname kill ps mount head dd yes tail touch rm mkdir wc "
    "uname printf readlink stat nproc free seq chmod ln"
).split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1000:\nextra:x:2000:web\nmore:x:3000:\n"


def diff_id(architecture: str = "") -> str:
    """Of what it is made of: templates of virtual machines are kept by it."""
    return "sha256:" + hashlib.sha256(repr((APPLETS, PASSWD, GROUP, architecture)).encode()).hexdigest()


def fill(root: Path, architecture: str = "") -> None:
    """Unpack it into a directory; its programs are for the host or another architecture."""
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/web", "data"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy2(foreign.busybox(architecture) if architecture else "/bin/busybox", root / "bin" / "busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text(GROUP)
    (root / "bin" / "plain").write_text("no program")

"""What binfmt_misc's files say: only a handler that matches, is enabled and has its interpreter open counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.host import binfmt
from bastide.model.errors import Unsupported

MASK = "ffffffffffffff00fffffffffffffffffeffffff"


def registered(
    architecture: str, *, state: str = "enabled", flags: str = "OCF", offset: int = 0, mask: str = MASK
) -> str:
    """A file as the kernel shows a handler."""
    magic = binfmt.header(architecture).hex()
    return f"{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset {offset}\nmagic {magic}\nmask {mask}\n"


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "register").write_text("")
    return tmp_path


def test_a_handler_is_known_by_its_magic(mount: Path) -> None:
    (mount / "some-name").write_text(registered("arm64"))
    binfmt.need("arm64", mount)
    for other in ("arm", "riscv64", "s390x"):
        with pytest.raises(Unsupported, match=f"no handler for {other}: apt-get install qemu-user-static"):
            binfmt.need(other, mount)


@pytest.mark.parametrize(
    "text",
    [
        registered("arm64", state="disabled"),
        registered("arm64", offset=4),
        registered("arm64", mask="ff"),
        registered("amd64"),
        "enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n",
        "enabled\nmagic zz\n",
        "",
    ],
)
def test_what_is_no_handler(mount: Path, text: str) -> None:
    (mount / "qemu-aarch64").write_text(text)
    with pytest.raises(Unsupported, match="no handler for arm64"):
        binfmt.need("arm64", mount)


def test_a_handler_that_containers_cannot_reach(mount: Path) -> None:
    (mount / "qemu-aarch64").write_text(registered("arm64", flags="OC"))
    with pytest.raises(Unsupported, match=r"qemu-aarch64 has no flag F.*apt-get install"):
        binfmt.need("arm64", mount)


def test_all_handlers_switched_off(mount: Path) -> None:
    (mount / "qemu-aarch64").write_text(registered("arm64"))
    (mount / "status").write_text("disabled\n")
    with pytest.raises(Unsupported, match="no handler"):
        binfmt.need("arm64", mount)


def test_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no handler"):
        binfmt.need("arm64", tmp_path / "nothing")


def test_an_unknown_architecture(mount: Path) -> None:
    with pytest.raises(Unsupported, match="wish"):
        binfmt.need("wish", mount)

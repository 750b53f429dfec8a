"""Users are the image's own, and its files may say anything (ATTACKS 19)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bastide.host.paths import root_of
from bastide.model.errors import InvalidArgument
from bastide.runtime.users import Identity, resolve

PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n42:x:1042:1042::/odd:\n"
GROUP = "root:x:0:\nweb:x:1001:\nextra:x:2000:web,root\nother:x:3000:x\n"

Resolve = Callable[..., Identity]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text(GROUP)
    return root


def look(tree: Path, user: str, extra: tuple[str, ...] = ()) -> Identity:
    with root_of(tree) as root:
        return resolve(root, user, extra)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("", 0, 0, (0, 2000)),
        ("root", 0, 0, (0, 2000)),
        ("web", 1000, 1001, (1001, 2000)),
        ("1000", 1000, 1001, (1001, 2000)),
        ("web:", 1000, 1001, (1001, 2000)),
        ("web:other", 1000, 3000, (3000,)),
        ("web:77", 1000, 77, (77,)),
        ("5000", 5000, 0, (0,)),
        ("5000:5001", 5000, 5001, (5001,)),
        ("42", 1042, 1042, (1042,)),
    ],
)
def test_forms(tree: Path, user: str, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    found = look(tree, user)
    assert (found.uid, found.gid, found.groups) == (uid, gid, groups)


def test_further_groups(tree: Path) -> None:
    assert look(tree, "5000", ("extra", "99", "extra")).groups == (0, 2000, 99)
    with pytest.raises(InvalidArgument, match="unable to find group nobody"):
        look(tree, "5000", ("nobody",))


@pytest.mark.parametrize("user", ["nobody", "-1", "4294967296", "0x0", "web:nobody", "²", "1 ", "9" * 5000])
def test_unknown(tree: Path, user: str) -> None:
    with pytest.raises(InvalidArgument):
        look(tree, user)


def test_without_files(tmp_path: Path) -> None:
    assert look(tmp_path, "").uid == 0
    assert look(tmp_path, "12:13").gid == 13
    with pytest.raises(InvalidArgument, match="no matching entries in passwd file"):
        look(tmp_path, "web")


@pytest.mark.parametrize(
    "line",
    [
        "web:x:0x3e8:0::/:",
        "web:x:99999999999999999999999999:0::/:",
        "web:x:-5:0::/:",
        "web:x:1000:nonsense::/:",
        "web:x",
        "web:x:²:0::/:",
        "\0\xff" * 1000,
        "",
    ],
)
def test_broken_lines_are_no_entries(tree: Path, line: str) -> None:
    (tree / "etc" / "passwd").write_text(line + "\n")
    with pytest.raises(InvalidArgument):
        look(tree, "web")


def test_the_hosts_files_are_out_of_reach(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("web:x:7:7::/stolen:\n")
    passwd = tree / "etc" / "passwd"
    passwd.unlink()
    for target in ("../../passwd", str(tmp_path / "passwd"), "/proc/self/root" + str(tmp_path / "passwd")):
        passwd.symlink_to(target)
        with pytest.raises(InvalidArgument):
            look(tree, "web")
        passwd.unlink()


def test_a_link_inside_is_followed(tree: Path) -> None:
    (tree / "usr").mkdir()
    (tree / "etc" / "passwd").rename(tree / "usr" / "passwd")
    (tree / "etc" / "passwd").symlink_to("/usr/passwd")
    assert look(tree, "web").uid == 1000


def test_what_is_no_file_is_not_read(tree: Path) -> None:
    import os

    passwd = tree / "etc" / "passwd"
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(InvalidArgument):
        look(tree, "web")
    passwd.unlink()
    passwd.mkdir()
    with pytest.raises(InvalidArgument):
        look(tree, "web")


def test_huge_files_are_read_in_part(tree: Path) -> None:
    with (tree / "etc" / "passwd").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidArgument):
        look(tree, "web")

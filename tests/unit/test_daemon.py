"""The daemon's settings: file, environment, flags, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.daemon import parse
from bastide.model.errors import InvalidArgument

NO_FILE = ("--config", "/nonexistent")


def test_later_sources_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text('bridge = "file0"\nvm_cpus = 2\nsocket_group = "file"\n')
    monkeypatch.setenv("BASTIDE_BRIDGE", "env0")
    monkeypatch.setenv("BASTIDE_SOCKET_GROUP", "env")
    found = parse(["--config", str(file), "--set", "bridge=flag0"])
    assert (found.bridge, found.socket_group, found.vm_cpus) == ("flag0", "env", 2)


@pytest.mark.parametrize("source", ["environment", "flag"])
def test_address_pools_are_split_at_commas(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = "10.1.0.0/16,10.2.0.0/16"
    if source == "environment":
        monkeypatch.setenv("BASTIDE_ADDRESS_POOLS", pools)
    flags = ["--set", f"address_pools={pools}"] if source == "flag" else []
    assert parse([*NO_FILE, *flags]).address_pools == ("10.1.0.0/16", "10.2.0.0/16")


@pytest.mark.parametrize("entry", ["nothing=1", "bridge", "vm_cpus=many"])
def test_bad_settings_are_one_line(entry: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse([*NO_FILE, "--set", entry])
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("content", [b"bridge = \n", b"bridge = '\xff'\n"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"config\.toml"):
        parse(["--config", str(file)])

"""Credentials: `config.json`, helpers, and the file's mode (ATTACKS 31)."""

from __future__ import annotations

import json
import os
from base64 import b64encode, urlsafe_b64decode
from pathlib import Path

import pytest
from tests.pretender import Pretender, reply, stream
from tests.unit.cli.conftest import Bastide

from bastide.cli import credentials
from bastide.cli.grammar import CommandError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config"
    monkeypatch.setenv("DOCKER_CONFIG", str(path))
    return path


def test_kept_found_and_forgotten(folder: Path) -> None:
    assert credentials.find("r.example.com") == {}
    where = credentials.keep("r.example.com", "me", "a:b", "")
    assert where == str(folder / "config.json")
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert credentials.find("r.example.com") == {
        "username": "me",
        "password": "a:b",
        "serveraddress": "r.example.com",
    }
    credentials.keep("t.example.com", "me", "x", "token")
    assert credentials.find("t.example.com")["identitytoken"] == "token"
    assert credentials.forget("r.example.com")
    assert not credentials.forget("r.example.com")
    assert list(json.loads((folder / "config.json").read_text())["auths"]) == ["t.example.com"]


def test_other_settings_stay(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"psFormat": "x", "auths": {}}')
    credentials.keep("r", "me", "x", "")
    assert json.loads((folder / "config.json").read_text())["psFormat"] == "x"


def test_a_broken_file(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{")
    with pytest.raises(CommandError, match="could not read"):
        credentials.find("r")
    (folder / "config.json").write_text('{"auths": {"r": {"auth": "*"}}}')
    with pytest.raises(CommandError, match="not base64"):
        credentials.find("r")


def test_a_helper(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    program = tmp_path / "docker-credential-fake"
    program.write_text(
        '#!/bin/sh\nread key\ncase "$1 $key" in\n'
        '"get r") echo \'{"ServerURL":"r","Username":"me","Secret":"s"}\' ;;\n'
        '"get t") echo \'{"Username":"<token>","Secret":"tok"}\' ;;\n'
        '"get n") echo no; exit 1 ;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (folder / "config.json").write_text('{"credsStore": "fake", "credHelpers": {"gone": "missing"}}')
    assert credentials.find("r") == {"username": "me", "password": "s", "serveraddress": "r"}
    assert credentials.find("t") == {"identitytoken": "tok", "serveraddress": "t"}
    assert credentials.find("n") == {}
    with pytest.raises(CommandError, match="could not run the credential helper docker-credential-missing"):
        credentials.find("gone")


def test_login_and_pull(pretender: Pretender, bastide: Bastide, tmp_path: Path) -> None:
    pretender.answers |= {
        "POST /auth": reply({"Status": "Login Succeeded", "IdentityToken": ""}),
        "POST /images/create": stream({"status": "done"}),
    }
    done = bastide("login", "-u", "me", "-p", "secret", "r.example.com")
    assert (done.code, done.out) == (0, "Login Succeeded\n")
    assert "secret" not in done.out + done.err
    assert pretender.last("POST /auth").json == {
        "username": "me",
        "password": "secret",
        "serveraddress": "r.example.com",
    }
    bastide("pull", "r.example.com/team/app:1")
    header = pretender.last("POST /images/create").headers["x-registry-auth"]
    assert json.loads(urlsafe_b64decode(header))["password"] == "secret"
    bastide("pull", "other.example.com/app:1")
    assert "x-registry-auth" not in pretender.last("POST /images/create").headers
    assert bastide("logout", "r.example.com").out == "Removing login credentials for r.example.com\n"
    assert bastide("logout", "r.example.com").out == "Not logged in to r.example.com\n"
    saved = json.loads((tmp_path / "config" / "config.json").read_text())
    assert b64encode(b"me:secret").decode() not in json.dumps(saved)

"""A registry that wants to know who asks: login, logout and helpers, by the command line and the daemon."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import CLI, Daemon, busybox_archive
from tests.registry import Registry

PASSWORD = "word-that-nobody-may-see"
HELPER = """#!/bin/sh
cat > "$0.asked"
[ "$1" = get ] && printf '{"ServerURL":"x","Username":"me","Secret":"%s"}' "$(cat "$0.secret")"
"""


@pytest.fixture(scope="module")
def guarded() -> Iterator[Registry]:
    made = Registry("me", PASSWORD)
    yield made
    made.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon("lo", "10.91.0.0/16", "10.109.0.0/16", prepared_namespaces="0")
    try:
        made.start()
        made.ok("load", "-i", str(busybox_archive(tmp_path / "busybox.tar")))
        yield made
    finally:
        made.close()


def test_push_and_pull_need_a_login(engine: Daemon, guarded: Registry) -> None:
    name = f"{guarded.host}/private:1"
    engine.ok("tag", "busybox", name)
    for command in (["push", name], ["pull", name]):
        done = engine.cli(*command)
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    wrong = engine.cli("login", "-u", "me", "--password-stdin", guarded.host, stdin=b"wrong")
    assert wrong.returncode == 1
    assert "refused the user name or the password" in wrong.stderr
    said = engine.cli("login", "-u", "me", "--password-stdin", guarded.host, stdin=PASSWORD.encode(), check=True)
    assert "Login Succeeded" in said.stdout
    kept = engine.base / ".docker" / "config.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["auths"][guarded.host]["auth"]
    engine.ok("push", "-q", name)
    engine.ok("rmi", name)
    engine.ok("pull", "-q", name)
    engine.ok("rmi", name)
    assert "Removing login credentials" in engine.ok("logout", guarded.host)
    assert engine.cli("pull", name).returncode == 1
    found = subprocess.run(["grep", "-rlaF", PASSWORD, str(engine.base)], capture_output=True, check=False)
    assert found.stdout == b"", "no log or state of the daemon holds it"


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_a_helper_gives_what_it_keeps(engine: Daemon, guarded: Registry, tmp_path: Path, key: str) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    helper.with_name(helper.name + ".secret").write_text(PASSWORD)
    (engine.base / ".docker").mkdir()
    wanted = {"credHelpers": {guarded.host: "test"}, "credsStore": "test"}[key]
    (engine.base / ".docker" / "config.json").write_text(json.dumps({key: wanted}))
    environment = engine.environment | {"PATH": f"{tmp_path}:{engine.environment['PATH']}"}
    name = f"{guarded.host}/helped:1"
    engine.ok("tag", "busybox", name)
    for command in (["push", "-q", name], ["rmi", name], ["pull", "-q", name]):
        done = subprocess.run([*CLI, *command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert guarded.host in helper.with_name(helper.name + ".asked").read_text()
    assert PASSWORD not in (engine.base / ".docker" / "config.json").read_text()
    assert base64.b64encode(f"me:{PASSWORD}".encode()) not in (engine.base / ".docker" / "config.json").read_bytes()

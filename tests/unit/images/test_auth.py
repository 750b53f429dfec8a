"""Credentials: where they are found, and where they must not go (ATTACKS 5, 31)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from bastide.images import auth
from bastide.images.auth import Credentials, challenges, check_realm
from bastide.model.errors import InvalidArgument, PermissionDenied, Unauthorized


def written(tmp_path: Path, content: object) -> list[Path]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return [tmp_path / "absent.json", path]


def pair(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_narrowest_entry_wins(tmp_path: Path) -> None:
    auths = {name: {"auth": pair(f"{user}:p:w")} for name, user in (("quay.io", "all"), ("quay.io/team", "team"))}
    places = written(tmp_path, {"auths": auths})
    found = await auth.find("quay.io", "team/app", places)
    assert found is not None
    assert (found.username, found.password) == ("team", "p:w")
    found = await auth.find("quay.io", "other/app", places)
    assert found is not None
    assert found.username == "all"
    assert await auth.find("quay.io.evil.example", "team/app", places) is None


async def test_docker_hubs_own_key(tmp_path: Path) -> None:
    places = written(tmp_path, {"auths": {"https://index.docker.io/v1/": {"identitytoken": "t", "auth": pair("u:")}}})
    found = await auth.find("docker.io", "library/debian", places)
    assert found is not None
    assert (found.identitytoken, found.username) == ("t", "u")


async def test_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get registry.example' ] || exit 1\n"
        'echo \'{"ServerURL":"registry.example","Username":"u","Secret":"s"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    places = written(tmp_path, {"credHelpers": {"registry.example": "test"}})
    found = await auth.find("registry.example", "app", places)
    assert found == Credentials(username="u", password="s")
    assert await auth.find("other.example", "app", places) is None
    with pytest.raises(InvalidArgument):
        await auth.find("other.example", "app", written(tmp_path, {"credsStore": "../../bin/sh"}))


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": 3}', '{"auths": {"h": {"auth": "%%%"}}}'])
async def test_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InvalidArgument):
        await auth.find("h", "x", [tmp_path / "c.json"])


def test_secrets_are_not_shown() -> None:
    found = Credentials(username="u", password="hush", identitytoken="hush", registrytoken="hush", auth="hush")
    assert "hush" not in repr(found)
    assert "hush" not in str(found)


def test_challenges() -> None:
    bearer = 'Bearer realm="https://auth.example/token",service="a, b",scope="repository:x/y:pull,push"'
    found = challenges([f'{bearer}, Basic realm="r \\"q\\""'])
    assert [challenge.scheme for challenge in found] == ["bearer", "basic"]
    assert found[0].parameters["service"] == "a, b"
    assert found[0].parameters["scope"] == "repository:x/y:pull,push"
    assert found[1].parameters["realm"] == 'r "q"'
    assert challenges(["Negotiate", "", "Bearer" * 10_000]) == []


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example/token",
        "https://127.0.0.1/token",
        "https://169.254.169.254/latest",
        "https://[::1]/token",
        "https://localhost/token",
        "https://10.0.0.1/token",
        "file:///etc/passwd",
        "https://user:pw@auth.example/token",
        "gopher://x",
        "",
    ],
)
def test_hostile_realm(realm: str) -> None:
    with pytest.raises(PermissionDenied):
        check_realm(realm, "registry.example", plain=False)


def test_realms_that_are_fine() -> None:
    assert check_realm("https://auth.docker.io/token", "registry-1.docker.io", plain=False)
    assert check_realm("http://127.0.0.1:5001/token", "127.0.0.1:5000", plain=True)
    assert check_realm("https://10.0.0.2/token", "10.0.0.1:5000", plain=False)


@pytest.mark.parametrize("token", ["", "a\r\nX-Evil: 1", "tök"])
def test_token_unfit_for_a_header(token: str) -> None:
    with pytest.raises(Unauthorized):
        _ = auth.Token(token=token).value

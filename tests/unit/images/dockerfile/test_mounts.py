"""`RUN --mount`: what each kind takes, and what it gives where nothing is said."""

from __future__ import annotations

import pytest

from bastide.images.dockerfile.mounts import parse_mount
from bastide.model.errors import InvalidArgument, Unsupported


def test_defaults() -> None:
    bind = parse_mount("target=/x")
    assert (bind.kind, bind.target, bind.source, bind.read_only) == ("bind", "/x", "", True)
    cache = parse_mount("type=cache,target=/root/.cache/")
    assert (cache.id, cache.sharing, cache.read_only) == ("/root/.cache", "shared", False)
    secret = parse_mount("type=secret,id=token")
    assert (secret.target, secret.required, secret.mode) == ("/run/secrets/token", False, None)
    assert parse_mount("type=secret,target=/etc/key").id == "key"
    assert parse_mount("type=ssh").id == "default"


def test_everything_said() -> None:
    found = parse_mount('type=cache,id=a,"target=/with,comma",sharing=locked,mode=0700,uid=5,gid=6,from=img,src=/s,ro')
    assert (found.target, found.sharing, found.mode, found.uid, found.gid) == ("/with,comma", "locked", 0o700, 5, 6)
    assert (found.origin, found.source, found.read_only) == ("img", "/s", True)
    assert parse_mount("type=tmpfs,target=/t,size=64m").size == 64 << 20
    assert not parse_mount("type=bind,target=/t,rw").read_only


@pytest.mark.parametrize(
    "text",
    [
        "type=magic,target=/x",
        "type=bind",
        "type=cache",
        "type=bind,target=/x,nope=1",
        "type=cache,target=/x,sharing=maybe",
        "type=cache,target=/x,mode=999",
        "type=cache,target=/x,uid=-1",
        "type=secret",
        "type=secret,id=",
        "type=tmpfs,target=/x,size=huge",
        "type=secret,id=a,required=perhaps",
        'type=bind,"target=/x',
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_mount(text)


def test_a_secret_in_the_environment_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="env="):
        parse_mount("type=secret,id=token,env=TOKEN")

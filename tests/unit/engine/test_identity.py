"""Ids, names and lookups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engine.identity import Index, check_name, new_id, new_name
from bastide.model.container import Config, Container, HostConfig, Isolation
from bastide.model.errors import InvalidArgument, NotFound


def container(container_id: str, name: str) -> Container:
    return Container(
        id=container_id,
        name=name,
        created="",
        config=Config(),
        host_config=HostConfig(),
        image_id="",
        image_ref="",
        layers=[],
        isolation=Isolation.CONTAINER,
        runtime="crun",
        snapshotter="overlay",
        platform="linux",
        path="",
        args=[],
    )


def test_ids_are_64_hexadecimal_digits_and_differ() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 64 and int(one, 16) >= 0 and not one[:12].isdigit() for one in ids)


def test_made_names_are_valid_and_free() -> None:
    taken: set[str] = set()
    for _ in range(300):
        taken.add(check_name(new_name(taken)))
    assert len(taken) == 300


@pytest.mark.parametrize("name", ["", "a", "-x", "--name=-x", "../x", "a b", "a/b", "a\n", "é1", "x" * 256])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid container name"):
        check_name(name)


@given(st.text(max_size=300))
def test_no_name_that_passes_can_leave_a_folder_or_look_like_an_option(name: str) -> None:
    try:
        bare = check_name(name)
    except InvalidArgument:
        return
    assert "/" not in bare
    assert not bare.startswith((".", "-"))


def test_lookup_by_id_name_and_prefix() -> None:
    index = Index()
    first, second = container("ab" + "0" * 62, "one"), container("ac" + "0" * 62, "ab")
    index.put(first)
    index.put(second)
    assert index.find("/one") is first
    assert index.find("ab") is second, "a name goes before a prefix"
    assert index.find("ab0") is first
    with pytest.raises(InvalidArgument, match="Multiple IDs found with provided prefix: a"):
        index.find("a")
    with pytest.raises(NotFound, match="No such container: zz"):
        index.find("zz")


def test_a_rename_frees_the_old_name() -> None:
    index = Index()
    index.put(container("a" * 64, "old"))
    index.put(container("a" * 64, "new"))
    assert index.named("old") is None
    assert index.find("new").name == "new"

"""A host whose policy takes no image, and the one that somebody asked for all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import Daemon, busybox_archive
from tests.registry import Registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that takes nothing."""
    (tmp_path / "policy.json").write_text(json.dumps({"default": [{"type": "reject"}]}))
    made = Daemon(
        "tr", "10.92.0.0/16", "10.108.0.0/16", prepared_namespaces="0", containers_configuration=str(tmp_path)
    )
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_an_opt_out_is_by_name_and_shown(strict: Daemon, registry: Registry, tmp_path: Path) -> None:
    reference = registry.fill(busybox_archive(tmp_path / "busybox.tar"), "app:1")
    for command in (["pull", reference], ["run", "--rm", "--network=none", reference, "true"]):
        done = strict.cli(*command)
        assert done.returncode
        assert "is rejected by" in done.stderr
    unknown = strict.cli("pull", "--insecure-options=everything", reference)
    assert unknown.returncode == 1
    assert "unknown insecure option 'everything'" in unknown.stderr
    flags = ["--insecure-options=image", "--network=none", "--name=trusting"]
    strict.ok("run", "-d", *flags, reference, "sleep", "60")
    assert "container (insecure: image)" in strict.ok("ps")
    assert strict.inspect("trusting")["InsecureOptions"] == ["image"]
    assert json.loads(strict.ok("image", "inspect", reference))[0]["InsecureOptions"] == ["image"]
    strict.ok("rm", "-f", "trusting")
    strict.ok("rmi", reference)
    strict.ok("pull", "-q", "--insecure-options=image", reference)
    assert strict.cli("load", "-i", str(tmp_path / "busybox.tar")).returncode == 1

"""Keys of steps, rows that outlive the daemon, and steps taken from images."""

from __future__ import annotations

from pathlib import Path

from bastide.engine.build.cache import Cache, Row, from_images, key
from bastide.engine.state import Store
from bastide.model.container import Config
from bastide.model.image import Descriptor, History, Image, Platform

LAYER = Descriptor(media_type="layer", digest="sha256:" + "a" * 64, size=1)
DIFF = "sha256:" + "b" * 64


class Layers:
    """As much of the layers as the cache asks."""

    def __init__(self) -> None:
        self.present = True

    def has(self, descriptor: Descriptor, diff_id: str) -> bool:
        return self.present


def test_keys_tell_parts_apart() -> None:
    assert len({key("p"), key("p", ""), key("p", "a", "b"), key("p", "ab"), key("p", "a b"), key("q", "a", "b")}) == 6
    assert key("p", "a") == key("p", "a")


def test_rows_survive_and_go_with_their_layer(tmp_path: Path) -> None:
    store, layers = Store(tmp_path), Layers()
    Cache(store, layers).put("k", Row(parent="", instruction="RUN x", created="then", layer=LAYER, diff_id=DIFF))  # type: ignore[arg-type]
    store.close()
    store = Store(tmp_path)
    cache = Cache(store, layers)  # type: ignore[arg-type]
    row = cache.find("k")
    assert row is not None
    assert (row.uses, row.created) == (1, "then")
    assert cache.kept() == {LAYER.digest, DIFF}
    layers.present = False
    assert cache.find("k") is None
    assert not cache.kept()
    store.close()


def test_prune_takes_what_no_image_has_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cache = Cache(store, Layers())  # type: ignore[arg-type]
    for number, diff_id in enumerate(("one", "two", "three")):
        used = f"2026-01-0{number + 1}T00:00:00.000000000Z"
        cache.put(f"sha256:{diff_id}", Row(parent="", instruction="", created="", diff_id=diff_id, size=10, used=used))
    chosen = cache.choose(shared={"two"}, every=False, keep_bytes=0, until=0)
    assert chosen == ["sha256:one", "sha256:three"]
    assert cache.choose(shared=set(), every=True, keep_bytes=20, until=0) == ["sha256:one"]
    assert cache.choose(shared=set(), every=True, keep_bytes=0, until=0, identifiers=["tw"]) == ["sha256:two"]
    store.close()


def image(*steps: tuple[str, bool]) -> Image:
    layers = [step for step, empty in steps if not empty]
    return Image(
        id="i",
        manifest=LAYER,
        target=LAYER,
        layers=[LAYER] * len(layers),
        diff_ids=[f"diff-{step}" for step in layers],
        platform=Platform(),
        created="",
        config=Config(),
        history=[History(created_by=step, empty_layer=empty or None) for step, empty in steps],
    )


def test_a_step_of_an_image() -> None:
    made = image(("base", False), ("ENV", True), ("RUN a", False), ("CMD", True))
    history, diff_ids = made.history, made.diff_ids
    found = from_images([image(("other", False)), made], history[:2], diff_ids[:1], "RUN a")
    assert found is not None
    assert found[1:] == (LAYER, "diff-RUN a")
    last = from_images([made], history[:3], diff_ids[:2], "CMD")
    assert last is not None
    assert last[1:] == (None, "")
    assert from_images([made], history[:2], diff_ids[:1], "RUN b") is None
    assert from_images([made], history[:2], ["another base"], "RUN a") is None
    assert from_images([made], history, diff_ids, "RUN more") is None

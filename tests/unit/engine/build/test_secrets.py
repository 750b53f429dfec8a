"""Secrets wait once, not for ever, and show themselves to nobody."""

from __future__ import annotations

import pytest

from bastide.engine.build.options import Options
from bastide.engine.build.secrets import SIZE_LIMIT, Secrets
from bastide.model.errors import NotFound, ResourceExhausted


def test_once() -> None:
    kept = Secrets()
    word = kept.put({"a": b"value"})
    assert "value" not in repr(kept)
    assert kept.take(word) == {"a": b"value"}
    with pytest.raises(NotFound):
        kept.take(word)


def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Secrets()
    word = kept.put({"a": b"value"})
    monkeypatch.setattr("bastide.engine.build.secrets.time.monotonic", lambda: 1e12)
    with pytest.raises(NotFound):
        kept.take(word)


def test_limits() -> None:
    kept = Secrets()
    with pytest.raises(ResourceExhausted):
        kept.put({"a": b"x" * (SIZE_LIMIT + 1)})
    for _ in range(64):
        kept.put({})
    with pytest.raises(ResourceExhausted):
        kept.put({})


def test_options_show_no_secret() -> None:
    options = Options(secrets={"a": b"value"}, credentials={"r": {"password": "pass"}}, arguments={"T": "token"})
    assert not [word for word in ("value", "pass", "token") if word in repr(options)]

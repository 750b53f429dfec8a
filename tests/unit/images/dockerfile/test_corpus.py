"""Every Dockerfile of the corpus: what it says, as a golden file; or the error that it ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.dockerfiles import Case, cases

from bastide.images.dockerfile.stages import Dockerfile, parse
from bastide.model.errors import BastideError

CASES = cases()
PLATFORM = {"TARGETPLATFORM": "linux/amd64", "TARGETOS": "linux", "TARGETARCH": "amd64", "TARGETVARIANT": ""}
LATE = (
    # Errors that depend on an image, a context or a variable's value appear while building.
    "bad-env-value bad-expose bad-modifier bad-mount bad-substitution bad-unterminated-quote copy-many-to-file "
    "copy-missing run-fails run-unknown-command stage-missing-target"
).split()


def shown(parsed: Dockerfile) -> dict[str, Any]:
    stages = []
    for stage in parsed.stages:
        body = [
            {"is": type(said).__name__}
            | {name: value for name, value in msgspec.to_builtins(said).items() if name != "original" and value}
            for said in stage.instructions
        ]
        stages.append({"name": stage.name, "base": stage.base, "parent": stage.parent, "body": body})
    return {"escape": parsed.escape, "arguments": parsed.arguments, "stages": stages}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.fails is None or case.name in LATE], ids=lambda c: c.name
)
def test_parsed(case: Case, golden: Callable[[str, str], None]) -> None:
    parsed = parse(case.dockerfile, case.options.get("args", {}), PLATFORM)
    text = json.dumps(shown(parsed), indent=1, ensure_ascii=False) + "\n"
    golden(f"dockerfiles/{case.name}/parsed.json", text)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.fails is not None and case.name not in LATE], ids=lambda c: c.name
)
def test_refused(case: Case) -> None:
    with pytest.raises(BastideError) as caught:
        parse(case.dockerfile, case.options.get("args", {}), PLATFORM)
    assert case.fails is not None
    assert case.fails in caught.value.message
    assert "\n" not in caught.value.message


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60

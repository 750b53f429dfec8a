"""Whatever a Dockerfile holds, reading it ends soon, with instructions or with one line of error."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.engine.build.state import apply, from_scratch
from bastide.images.dockerfile.ignore import Ignore
from bastide.images.dockerfile.instructions import Arg, Copy, Run, names
from bastide.images.dockerfile.mounts import parse_mount
from bastide.images.dockerfile.stages import parse
from bastide.images.dockerfile.words import Expander
from bastide.model.errors import BastideError
from bastide.model.image import Platform

PIECES = (
    *names(),
    *"FROM ARG AS as scratch busybox # # escape=` # syntax=x \\ ` \n \r\n \t $ ${ } ${A ${A:-b} ${A:+b} ${A:?b} ${A#*} "
    '${A//a/b} $A ${} \' " [ ] ["a"] ["a", [1] { } = A=b A= =b <<EOF <<-EOF <<\'EOF\' EOF -- --from=a --mount= '
    "--mount=type=bind,target=/x --mount=type=cache,target=/y,sharing=locked --chown=1:2 --chmod=755 "
    "--link --interval=1s "
    "--platform=$P / . .. * ** ? [a- [!a] ! 80 80/tcp 1-2 CMD NONE é ☃ \x00 \x1b \ufeff , ; | & > < ( )".split(" "),
)
MOUNT_PIECES = 'type= bind cache secret ssh tmpfs target= source= id= from= ro rw , = " mode= 7 uid= env='.split()
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=40).map(" ".join) | st.text(max_size=200)
lines = st.lists(texts, max_size=8).map("\n".join)


@settings(max_examples=600, deadline=2000)
@given(st.sampled_from(["", "FROM a\n", "ARG A=1\nFROM a AS b\n"]), lines)
def test_dockerfiles(head: str, text: str) -> None:
    with suppress(BastideError):
        parsed = parse((head + text).encode(errors="surrogatepass"), {"A": "given", "B": None}, {"P": "linux/amd64"})
        for stage in parsed.stages:
            state = from_scratch(Platform(), "")
            for instruction in stage.instructions:
                if not isinstance(instruction, Copy | Run | Arg):
                    state, said = apply(state, instruction, state.expander(parsed.escape))
                    assert said


@settings(max_examples=400, deadline=2000)
@given(texts)
def test_words(text: str) -> None:
    expander = Expander({"A": "a b", "P": "/x/y.z"})
    for read in (expander.word, expander.words, expander.text):
        with suppress(BastideError):
            read(text)


@settings(max_examples=400, deadline=2000)
@given(lines, texts)
def test_ignore(rules: str, path: str) -> None:
    with suppress(BastideError):
        assert Ignore(rules).excludes(path) in (True, False)


@settings(max_examples=400, deadline=2000)
@given(st.lists(st.sampled_from(MOUNT_PIECES), max_size=12).map("".join))
def test_mounts(text: str) -> None:
    with suppress(BastideError):
        assert parse_mount(text).kind

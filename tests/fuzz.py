"""What reads untrusted bytes, held against a fuzzer that follows the code's branches.

    python -m tests.fuzz TARGET [LIBFUZZER OPTION …]        (-max_total_time=600, -seed=1, a file to try again)

A target takes bytes; any exception but our own errors is a finding, and so is an answer that contradicts itself.
The seeds are what the tests have anyway. libFuzzer writes what it found as `crash-…` into the present folder.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bastide"], enable_loader_override=False):
    from bastide.engine.build.state import apply, from_scratch
    from bastide.images import manifest as documents
    from bastide.images.compression import decompress
    from bastide.images.dockerfile.ignore import Ignore
    from bastide.images.dockerfile.instructions import Arg, Copy, Run
    from bastide.images.dockerfile.stages import parse as parse_dockerfile
    from bastide.images.manifest import Index
    from bastide.images.reference import parse as parse_reference
    from bastide.images.tar import Reader
    from bastide.model.errors import BastideError
    from bastide.model.image import Platform

GOLDEN = Path(__file__).parent / "golden"
LONGEST = 1 << 16
"""Bytes of an input at most."""


def tar(data: bytes) -> None:
    """Archives, compressed or not, in pieces whose size the first byte gives."""
    step = (data[0] if data else 0) * 8 + 1
    pieces = [data[at : at + step] for at in range(1, len(data), step)]
    with suppress(BastideError):
        reader = Reader(decompress(pieces))
        for entry in reader:
            held = sum(len(piece) for piece in reader.pieces())
            assert held == entry.stored, (held, entry.stored)


def dockerfile(data: bytes) -> None:
    """Dockerfiles, and what their instructions make of an image; ignore files."""
    with suppress(BastideError):
        parsed = parse_dockerfile(data, {"A": "given", "B": None}, {"TARGETPLATFORM": "linux/amd64"})
        for stage in parsed.stages:
            state = from_scratch(Platform(), "")
            for instruction in stage.instructions:
                if not isinstance(instruction, Copy | Run | Arg):
                    state, said = apply(state, instruction, state.expander(parsed.escape))
                    assert said
    with suppress(BastideError):
        assert Ignore(data.decode(errors="replace")).excludes("a/b.txt") in (True, False)


def reference(data: bytes) -> None:
    """References: what is taken means the same when it is written out and read again."""
    with suppress(BastideError):
        found = parse_reference(data.decode(errors="surrogateescape"))
        assert parse_reference(str(found)) == found, found
        assert parse_reference(found.familiar).tagged() == found.tagged(), found
        assert ".." not in found.path.split("/"), found


def manifest(data: bytes) -> None:
    """Manifests, indexes and configurations."""
    with suppress(BastideError):
        found = documents.parse(data)
        documents.make_descriptor(data)
        documents.artifact_type(found)
        if isinstance(found, Index):
            documents.choose(found, Platform())
        else:
            documents.check_runnable(found)
    with suppress(BastideError):
        config = documents.parse_config(data)
        documents.rank(Platform(), config.platform)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tar": tar,
    "dockerfile": dockerfile,
    "reference": reference,
    "manifest": manifest,
}
_FIELDS = (
    "schemaVersion mediaType config layers manifests digest size urls annotations platform subject artifactType rootfs "
    "diff_ids history created"
)
WORDS = {
    "tar": "ustar\x0000|ustar  \x00|GNU.sparse.map=|GNU.sparse.major=1|path=|linkpath=|size=|30 mtime=".split("|"),
    "dockerfile": (
        "FROM ARG RUN COPY ADD --from= --mount=type=cache, <<EOF <<-'EOF' ${A:-b} ${A//a/b} ONBUILD HEALTHCHECK "
        '# syntax= # escape=` # check= SHELL ["a"] \\'
    ).split(" "),
    "reference": "docker.io/ library/ index.docker.io localhost :latest @sha256: [::1]:5000/ 127.0.0.1:1/".split(),
    "manifest": [*(f'"{word}"' for word in _FIELDS.split()), *documents.MediaType],
}


def _archives() -> Iterator[bytes]:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for name, fields in (
                ("a", {"size": 600}),
                ("b/" * 60 + "b", {"size": 5, "uid": 300_000}),
                ("d", {"type": b"5"}),
                ("l", {"type": b"2", "linkname": "c" * 90}),
                ("n", {"type": b"3", "devmajor": 1, "devminor": 3}),
                ("x", {"pax_headers": {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}}),
            ):
                info = tarfile.TarInfo(name)
                for field, value in fields.items():
                    setattr(info, field, value)
                archive.addfile(info, io.BytesIO(bytes(info.size)))
        yield b"\x40" + buffer.getvalue()
    for path in GOLDEN.glob("dockerfiles/*/*.tar*"):
        yield b"\xff" + path.read_bytes()


def _documents() -> Iterator[bytes]:
    digest, media = "sha256:" + "a" * 64, documents.MediaType
    part = {"mediaType": media.OCI_LAYER_GZIP, "digest": digest, "size": 3}
    config = {"mediaType": media.OCI_CONFIG, "digest": digest, "size": 7}
    platform = {"os": "linux", "architecture": "arm"}
    entry = {"mediaType": media.OCI_MANIFEST, "digest": digest, "size": 9, "platform": platform}
    head = {"schemaVersion": 2, "annotations": {"a": "b"}}
    image = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2026-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "config": {"Env": ["A=b"], "Healthcheck": {"Test": ["NONE"]}},
        "history": [{"empty_layer": True}],
    }
    for document in (
        head | {"mediaType": media.OCI_MANIFEST, "config": config, "layers": [part]},
        head | {"mediaType": media.OCI_INDEX, "manifests": [entry], "subject": entry},
        image,
    ):
        yield json.dumps(document).encode()


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "tar": _archives,
    "dockerfile": lambda: (path.read_bytes() for path in GOLDEN.glob("dockerfiles/*/Dockerfile")),
    "reference": lambda: iter([b"debian", b"localhost:5000/a/b:1", b"a.b/c@sha256:" + b"0" * 64, b"[::1]:1/a:b"]),
    "manifest": _documents,
}


def main(target: str, *options: str) -> None:
    """Fuzz until an option says that it is enough; ends the program."""
    with tempfile.TemporaryDirectory() as place:
        corpus, words = Path(place) / "corpus", Path(place) / "words"
        corpus.mkdir()
        for number, seed in enumerate(SEEDS[target]()):
            (corpus / str(number)).write_bytes(seed[:LONGEST])
        words.write_text(
            "".join('"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n' for word in WORDS[target])
        )
        again = [word for word in options if not word.startswith("-")]
        flags = [word for word in options if word.startswith("-")]
        arguments = [
            sys.argv[0],
            f"-max_len={LONGEST}",
            f"-dict={words}",
            "-verbosity=0",
            *flags,
            *(again or [str(corpus)]),
        ]
        atheris.Setup(arguments, TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

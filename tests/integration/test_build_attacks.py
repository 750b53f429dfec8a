"""Hostile Dockerfiles, contexts and images: nothing outside their own tree is reached (ATTACKS 9-13, 18, 19)."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.building import Built, build, context, link, read, send
from tests.living import Daemon

MARK = "the-host-was-here"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file of the host that nobody may reach; nothing may be added beside it."""
    (tmp_path / "file").write_text(MARK)
    yield tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert (tmp_path / "file").read_text() == MARK


UP = "../" * 30


@pytest.mark.parametrize(
    "target", ["{outside}/file", UP + "{bare}/file", "/proc/self/root{outside}/file", "/proc/1/root{outside}/file"]
)
@pytest.mark.parametrize(
    "step", ["COPY l /got", "COPY . /got/", "ADD l /got", "RUN --mount=source=l,target=/got cat /got"]
)
def test_a_link_in_the_context_leads_nowhere(daemon: Daemon, outside: Path, target: str, step: str) -> None:
    leads = target.format(outside=outside, bare=str(outside).lstrip("/"))
    done = build(daemon, f"FROM busybox\n{step}\n", {"l": link("l", leads)})
    assert MARK not in done.text
    if done.id:
        found = daemon.cli("run", "--rm", "--network=none", done.id, "grep", "-r", MARK, "/got")
        assert MARK not in found.stdout


@pytest.mark.parametrize(
    "step", ["COPY d/file /got", "COPY d/* /got/", "RUN --mount=source=d,target=/got grep -r . /got"]
)
def test_a_linked_directory_in_the_context_leads_nowhere(daemon: Daemon, outside: Path, step: str) -> None:
    done = build(daemon, f"FROM busybox\n{step}\n", {"d": link("d", str(outside))})
    assert MARK not in done.text + done.error
    assert not done.id


@pytest.mark.parametrize("source", ["{outside}/file", UP + "{bare}/file", "/proc/self/environ"])
@pytest.mark.parametrize("step", ["COPY {source} /got", "RUN --mount=source={source},target=/got cat /got"])
def test_a_source_does_not_climb_out(daemon: Daemon, outside: Path, source: str, step: str) -> None:
    name = source.format(outside=outside, bare=str(outside).lstrip("/"))
    done = build(daemon, f"FROM busybox\n{step.format(source=name)}\n")
    assert not done.id
    assert MARK not in done.text


@pytest.mark.parametrize("name", [UP + "{bare}/new", "{outside}/new", "x/../../../{bare}/new"])
def test_an_entry_of_the_context_does_not_climb_out(daemon: Daemon, outside: Path, name: str) -> None:
    entry = name.format(outside=outside, bare=str(outside).lstrip("/"))
    build(daemon, "FROM busybox\n", {entry: "x"})


def test_an_entry_behind_a_link_stays_inside(daemon: Daemon, outside: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, item in (("d", link("d", str(outside))), ("Dockerfile", None), ("d/new", None)):
            info = item or tarfile.TarInfo(name)
            data = b"FROM busybox\n" if name == "Dockerfile" else b"x"
            info.size = 0 if item else len(data)
            tar.addfile(info, None if item else io.BytesIO(data))
    send(daemon, buffer.getvalue())


@pytest.mark.parametrize("name", ["/etc/passwd", "../Dockerfile", "Dockerfile"])
def test_the_dockerfile_is_of_the_context(daemon: Daemon, outside: Path, name: str) -> None:
    files = {"Dockerfile": link("Dockerfile", str(outside / "file"))}
    done = send(daemon, context(files), dockerfile=name)
    assert not done.id
    assert MARK not in done.error
    assert "root:" not in done.error


@pytest.mark.parametrize(
    "step",
    [
        "COPY f /evil/new",
        "COPY f /evil/",
        "COPY d /evil",
        "COPY d/ /evil/deeper/still/",
        "ADD a.tar /evil/",
        "COPY <<new /evil/\nx\nnew",
        "WORKDIR /evil/new",
        "COPY --link f /evil/new",
        "COPY f /evilfile",
    ],
)
def test_a_link_in_the_image_does_not_lead_a_copy_out(daemon: Daemon, outside: Path, step: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("new"))
    files = {"f": "x", "d/new": "x", "a.tar": archive.getvalue()}
    for target in (str(outside), UP + str(outside).lstrip("/"), f"/proc/1/root{outside}"):
        plant = f"RUN ln -s {target} /evil && ln -s {target}/file /evilfile\n"
        done = build(daemon, f"FROM busybox\n{plant}{step}\n", files)
        assert "internal error" not in done.error


def test_links_between_layers_do_not_lead_out(daemon: Daemon, outside: Path) -> None:
    """An ancestor that becomes a link in one stage, copied over a directory of another."""
    done = build(
        daemon,
        f"FROM busybox AS evil\nRUN mkdir /t && ln -s {outside} /t/d\n"
        "FROM busybox\nRUN mkdir -p /t/d && touch /t/d/kept\nCOPY --from=evil /t /t\nCOPY f /t/d/new\n",
        {"f": "x"},
    )
    assert not done.error or "internal" not in done.error


def test_sources_of_other_stages_stay_in_them(daemon: Daemon, outside: Path) -> None:
    """A link of the image at a mount's source, the root itself among them, is the image's own (CVE-2024-1753)."""
    plant = f"FROM busybox AS evil\nRUN ln -s {outside} /e && ln -s /proc/1/root{outside} /p && ln -s /etc /own\n"
    for step in ("COPY --from=evil /e/file /got", "COPY --from=evil /p/file /got", "COPY --from=evil /e/. /got/"):
        assert not build(daemon, f"{plant}FROM busybox\n{step}\n").id
    for path in ("/e", "/p", "/e/file"):
        done = build(daemon, f"{plant}FROM busybox\nRUN --mount=from=evil,source={path},target=/got grep -r . /got\n")
        assert not done.id
        assert MARK not in done.text
    fine = build(daemon, f"{plant}FROM busybox\nCOPY --from=evil /own/passwd /got\n").ok()
    assert "web" in read(daemon, fine.id, "/got")


def test_a_cache_mount_is_not_led_out_by_what_it_holds(daemon: Daemon, outside: Path) -> None:
    build(daemon, f"FROM busybox\nRUN --mount=type=cache,id=evil,target=/c ln -sfn {outside} /c/d\n", nocache="1").ok()
    done = build(daemon, "FROM busybox\nRUN --mount=type=cache,id=evil,source=d,target=/c cat /c/file\n", nocache="1")
    assert not done.id
    assert MARK not in done.text


def test_a_cache_mount_swapped_while_another_build_mounts_it(daemon: Daemon, outside: Path) -> None:
    """Two builds share a cache; one turns a folder of it into a link and back (CVE-2024-23651)."""
    build(daemon, "FROM busybox\nRUN --mount=type=cache,id=race,target=/c mkdir -p /c/d\n", nocache="1").ok()
    swap = (
        "FROM busybox\nRUN --mount=type=cache,id=race,target=/c "
        f"while [ ! -e /c/stop ]; do mv /c/d /c/e; ln -s {outside} /c/d; rm /c/d; mv /c/e /c/d; done\n"
    )
    look = "FROM busybox\nRUN --mount=type=cache,id=race,source=d,target=/c ls -A /c; cat /c/file\n"
    done: list[Built] = []
    swapping = threading.Thread(target=lambda: done.append(build(daemon, swap, nocache="1")))
    swapping.start()
    try:
        for _ in range(15):
            seen = build(daemon, look, nocache="1")
            assert not seen.id
            assert MARK not in seen.text
            assert "internal" not in seen.error
    finally:
        build(daemon, "FROM busybox\nRUN --mount=type=cache,id=race,target=/c touch /c/stop\n", nocache="1").ok()
        swapping.join(60)
    assert done[0].ok()


def test_no_dockerfile_asks_for_privileges(daemon: Daemon) -> None:
    """Neither a step nor a frontend that the Dockerfile names is given more than it would have (CVE-2024-23653)."""
    insecure = build(daemon, "# syntax=evil.example/frontend\nFROM busybox\nRUN --security=insecure true\n")
    assert "RUN --security=insecure is not offered" in insecure.error
    device = build(daemon, "FROM busybox\nRUN --device=all true\n")
    assert not device.id
    shown = "grep -E 'CapEff|Seccomp:' /proc/self/status"
    done = build(daemon, f"# syntax=evil.example/frontend\nFROM busybox\nRUN {shown} > /shown\n").ok()
    plain = daemon.ok("run", "--rm", "--network=none", "busybox", "sh", "-c", shown)
    assert read(daemon, done.id, "/shown") == plain


def test_stubs_of_mounts_are_removed_through_no_link(daemon: Daemon, outside: Path) -> None:
    """A step that swaps the folder of a mount's target for a link: the clean-up follows it nowhere (CVE-2024-23652)."""
    (outside / "empty").mkdir()
    done = build(
        daemon,
        "FROM busybox\n"
        "RUN --mount=type=tmpfs,target=/a/empty mv /a /b 2>/dev/null; umount /a/empty 2>/dev/null; "
        f"rm -r /a; ln -s {outside} /a; true\n",
    )
    assert "internal" not in done.error
    assert (outside / "empty").is_dir()
    (outside / "empty").rmdir()


def test_writes_to_a_bound_context_are_lost(daemon: Daemon) -> None:
    done = build(
        daemon,
        "FROM busybox\nRUN --mount=target=/ctx touch /ctx/new 2>/dev/null || echo read-only > /said\n"
        "RUN --mount=target=/ctx,rw touch /ctx/new && rm /ctx/f\nCOPY f /f\n",
        {"f": "still here"},
    ).ok()
    assert read(daemon, done.id, "/said") == "read-only"
    assert read(daemon, done.id, "/f") == "still here"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_special_files_of_a_context_are_not_read(daemon: Daemon, kind: bytes) -> None:
    info = tarfile.TarInfo("n")
    info.type, info.devmajor, info.devminor = kind, 1, 5
    done = build(daemon, "FROM busybox\nCOPY n /n\n", {"n": info})
    assert "neither a file nor a directory" in done.error


def test_users_files_of_the_image_are_not_trusted(daemon: Daemon, outside: Path) -> None:
    plant = f"RUN ln -sf {outside}/file /etc/passwd && ln -sf /dev/zero /etc/group\n"
    done = build(daemon, f"FROM busybox\n{plant}COPY --chown=web:web f /f\n", {"f": "x"})
    assert "unable to find user web" in done.error
    bad = "web:x:99999999999999999999:1::/:\\nweb:x:-1:-1::/:\\n"
    done = build(daemon, f"FROM busybox\nRUN printf '{bad}' > /etc/passwd\nCOPY --chown=web f /f\n", {"f": "x"})
    assert done.error


@pytest.mark.parametrize("host", ["a:1.2.3.4\n6.6.6.6 evil", "a b:1.2.3.4", "a:not-an-address", ":1.2.3.4", "a:"])
def test_hosts_that_would_write_lines_of_their_own(daemon: Daemon, host: str) -> None:
    done = build(daemon, "FROM busybox\nRUN cat /etc/hosts\n", extrahosts=host)
    assert done.status == 400
    assert "invalid add-host" in done.error


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a tar at all" * 100,
        b"\x1f\x8b" + b"\0" * 100,
        context({"Dockerfile": "FROM busybox\n"})[:520],
        b"\0" * 10240,
    ],
    ids=["empty", "text", "broken-gzip", "cut-off", "zeros"],
)
def test_bodies_that_are_no_context(daemon: Daemon, data: bytes) -> None:
    done = send(daemon, data)
    assert done.status in (200, 400)
    assert done.error
    assert "internal error" not in done.error


def test_a_dockerfile_that_would_take_forever_is_refused_at_once(daemon: Daemon) -> None:
    begun = time.monotonic()
    for dockerfile in (
        "FROM busybox\nARG A=" + "x" * 60000 + "\n" + "ARG A=$A$A$A$A\n" * 12,
        "FROM busybox\nENV A=" + "${B:-" * 5000 + "}" * 5000 + "\n",
        "FROM busybox\n" + "RUN true\n" * 20000,
        "FROM busybox\nCOPY " + "*a" * 30 + "b /x\n",
        "FROM busybox\n" * 5000,
    ):
        done = build(daemon, dockerfile, {"a" * 120: "x"})
        assert done.error
        assert "\n" not in done.error
    assert time.monotonic() - begun < 30


def test_a_flood_of_output_does_not_fill_the_daemon(daemon: Daemon) -> None:
    assert daemon.process is not None
    before = memory(daemon.process.pid)
    dockerfile = (
        "FROM busybox AS slow\nRUN sleep 2\nFROM busybox AS loud\n"
        "RUN yes | head -c 30000000\nFROM busybox\nCOPY --from=slow /etc/passwd /a\nCOPY --from=loud /etc/passwd /b\n"
    )
    done = build(daemon, dockerfile, nocache="1").ok()
    assert len(done.text) > 30_000_000
    assert memory(daemon.process.pid) - before < 150 << 20


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

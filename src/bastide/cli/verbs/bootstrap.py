"""`bastide image bootstrap`: an image made of a distribution's own packages, where no registry is needed."""

from __future__ import annotations

import os

from bastide.cli.grammar import LIST, STRING, Command, CommandError, Options
from bastide.cli.options import references
from bastide.cli.show import progress
from bastide.cli.verbs import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Client

RELEASES = {
    "debian": {"11": "bullseye", "12": "bookworm", "13": "trixie"},
    "ubuntu": {"22.04": "jammy", "24.04": "noble"},
}
"""Suite of each release, by distribution; the suite's own name is understood as well."""

# What an image does without: lists and archives of packages, and pages that nobody reads in a container.
_LEAN = (
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
)


def bootstrap(client: Client, options: Options) -> int:
    """Make the root file system, whole, then import it: what fails half-way leaves nothing."""
    import tempfile

    (wanted,) = options.arguments
    suite = _suite(*references.split(wanted))
    name, tag = references.split(options.text("name") or wanted)
    with tempfile.TemporaryDirectory(prefix="bastide-bootstrap-", dir="/var/tmp") as scratch:
        archive = f"{scratch}/root.tar"
        _make(suite, archive, options)
        query = {
            "fromSrc": "-",
            "repo": name,
            "tag": tag,
            "message": f"bootstrapped from {suite}",
            "changes": ['CMD ["bash"]'],
            "platform": "",
        }
        progress.show(client.images.create_from(query, load.read(archive)))
    return 0


def _suite(name: str, tag: str) -> str:
    """The suite that `debian:12` or `debian:bookworm` means. Raises CommandError."""
    releases = RELEASES.get(name, {})
    if tag in releases.values():
        return tag
    if tag not in releases:
        known = ", ".join(f"{distribution}:{tag}" for distribution, tags in RELEASES.items() for tag in tags)
        raise CommandError(f"cannot bootstrap {name}:{tag or 'latest'}: choose one of {known}")
    return releases[tag]


def _make(suite: str, archive: str, options: Options) -> None:
    """Run mmdebstrap; its own progress goes to a terminal. Raises CommandError with its last line."""
    import subprocess

    include = [f"--include={packages}" for packages in options.all("include")]
    mirror = [options.text("mirror")] if options.text("mirror") else []
    watched = os.isatty(2)
    argv = ["mmdebstrap", "--variant=minbase", *_LEAN, *include, suite, archive, *mirror]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stderr=None if watched else subprocess.PIPE, text=True, check=False
        )
    except FileNotFoundError as error:
        raise CommandError("mmdebstrap is not installed: apt-get install mmdebstrap") from error
    if done.returncode:
        lines = [line for line in (done.stderr or "").splitlines() if line.startswith("E: ")] or ["see above"]
        raise CommandError(f"mmdebstrap could not make {suite}: {lines[0].removeprefix('E: ')}")


COMMAND = Command(
    bootstrap,
    "[OPTIONS] DISTRIBUTION:RELEASE",
    (
        ("include", "", LIST, "Packages to have in it, beside the essential ones"),
        ("mirror", "", STRING, "Mirror to take packages from"),
        ("name", "", STRING, "Name of the image, if it is to be another"),
    ),
    1,
    1,
    examples=(
        ("image bootstrap debian:12", "Debian 12 with its essential packages"),
        ("image bootstrap --include python3 --name python debian:13", "with Python, named python:latest"),
    ),
)

"""Log drivers and their options: what is accepted, the limits of a log, and what is told with each of its lines.

The names, rules and words are Docker's (moby daemon/logger: factory.go, jsonfilelog, local, loginfo.go and
loggerutils/log_tag.go). What the log cannot do is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote_plus

import msgspec

from bastide.model.container import Container, LogConfig
from bastide.model.errors import InvalidArgument, Unsupported

JOURNAL = Path("/run/systemd/journal/socket")
"""Where a journal listens (systemd-journald.service(8))."""

_DESCRIBING = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_COMMON = frozenset({"mode", "max-buffer-size"})
_OPTIONS: dict[str, frozenset[str]] = {
    "json-file": _DESCRIBING | {"max-size", "max-file", "compress"},
    "local": frozenset({"max-size", "max-file", "compress"}),
    "none": frozenset(),
    "journald": frozenset({"tag", "max-size", "max-file"}),
}
"""The log drivers, and the options that each has."""
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TRUTHS = {**dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True)} | {
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)
}
"""What Go's strconv.ParseBool takes."""
_MOST_REPEATS, _MOST_LETTERS = 2, 256
"""Of a pattern, and of the names that are tried: together they bound the time (the third power of the letters)."""

_ACTION = re.compile(r"{{-?\s*(.*?)\s*-?}}")
_TAG: dict[str, Callable[[Container], str]] = {
    ".ID": lambda container: container.id[:12],
    ".FullID": lambda container: container.id,
    ".Name": lambda container: container.name,
    ".ImageID": lambda container: container.image_id.removeprefix("sha256:")[:12],
    ".ImageFullID": lambda container: container.image_id,
    ".ImageName": lambda container: container.image_ref,
    ".Command": lambda container: " ".join((container.path, *container.args)),
    ".DaemonName": lambda container: "bastide",
}
"""What a tag may speak of (Docker's `log_tag`, with its methods of `logger.Info`)."""


class Limits(msgspec.Struct, frozen=True):
    """Bytes that one file of a log may have (below 0: any number), how many files, and whether old ones are packed."""

    size: int
    files: int
    compress: bool


def parse_size(text: str) -> int:
    """`10m` as bytes; -1 for no limit. Raises InvalidArgument."""
    word = text.strip().lower()
    if word == "-1":
        return -1
    number = word.rstrip("bkmg")
    unit = word[len(number) :].removesuffix("b") if len(word) > len(number) + 1 else word[len(number) :]
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", number) or unit not in _UNITS:
        raise InvalidArgument(f"invalid size: {text!r}")
    return int(float(number) * _UNITS[unit])


def checked(given: LogConfig) -> LogConfig:
    """The same with the driver filled in. Raises InvalidArgument, Unsupported."""
    driver, options = given.type or "json-file", given.config or {}
    if driver not in _OPTIONS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    for name in options:
        if name not in _OPTIONS[driver] | _COMMON:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
    _check_mode(options)
    _check_files(driver, options)
    for name in ("labels-regex", "env-regex"):
        _pattern(options.get(name, ""))
    for action in _ACTION.findall(options.get("tag", "")):
        if action not in _TAG:
            raise Unsupported(f"log option tag cannot have {{{{{action}}}}}: use {', '.join(_TAG)}")
    if driver == "journald" and not JOURNAL.exists():
        raise Unsupported(f"log driver journald cannot be had: no journal listens at {JOURNAL}")
    return LogConfig(type=driver, config=options)


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode == "blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        parse_size(options["max-buffer-size"])
    if mode == "non-blocking":
        raise Unsupported("log option mode=non-blocking is not offered: output goes to its file at once; leave it out")


def _check_files(driver: str, options: Mapping[str, str]) -> None:
    if "max-size" in options:
        parse_size(options["max-size"])
    if "max-file" in options and len(options["max-file"]) > 3 and options["max-file"].isdecimal():
        raise Unsupported("log option max-file is not offered above 999")
    if "max-file" in options and not (re.fullmatch("[0-9]{1,3}", options["max-file"]) and int(options["max-file"])):
        raise InvalidArgument("max-file cannot be less than 1")
    if "compress" in options and options["compress"] not in _TRUTHS:
        raise InvalidArgument(f"invalid value of log opt compress: {options['compress']!r}")
    if driver == "local":
        limits = _local(options)
        if limits.compress and limits.files == 1:
            raise InvalidArgument("compression cannot be enabled when max file count is 1")
    elif _TRUTHS[options.get("compress", "false")] and (
        int(options.get("max-file", "1")) == 1 or parse_size(options.get("max-size", "-1")) < 0
    ):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of names. Go's take linear time and Python's do not: those that could take for ever are refused."""
    if re.search(r"\)[*+?{]|\(\?|\\[1-9]", text) or len(re.findall("[*+{]", text)) > _MOST_REPEATS:
        raise Unsupported(
            f"log option: the pattern {text[:100]!r} is not offered: repeat no group, and at most {_MOST_REPEATS} times"
        )
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidArgument(f"log option: invalid pattern {text[:100]!r}: {error}") from error


def _local(options: Mapping[str, str]) -> Limits:
    return Limits(
        size=parse_size(options.get("max-size", "20m")),
        files=int(options.get("max-file", "5")),
        compress=_TRUTHS[options.get("compress", "true")],
    )


def limits(config: LogConfig, default: int) -> Limits:
    """The limits of a log; `default` is the size of one that has none of its own, in two files."""
    options = config.config or {}
    if config.type == "local":
        return _local(options)
    return Limits(
        size=parse_size(options["max-size"]) if "max-size" in options else default,
        files=int(options.get("max-file", "2")),
        compress=_TRUTHS[options.get("compress", "false")],
    )


def tag(container: Container) -> str:
    """The tag that was asked for, written out; empty where none was."""
    text = (container.host_config.log_config.config or {}).get("tag", "")
    return _ACTION.sub(lambda found: _TAG[found[1]](container) if found[1] in _TAG else found[0], text)


def details(container: Container) -> bytes:
    """What `details` puts before each line: the labels and variables that the log was told to keep, and its tag."""
    options = container.host_config.log_config.config or {}
    kept: dict[str, str] = {}
    environment = dict(entry.partition("=")[::2] for entry in container.config.env or [] if "=" in entry)
    for option, values in (("labels", container.config.labels or {}), ("env", environment)):
        named = {name for name in options.get(option, "").split(",") if name}
        pattern = options.get(f"{option}-regex")
        matching = _pattern(pattern) if pattern else None
        for name, value in values.items():
            if name in named or (matching is not None and matching.search(name[:_MOST_LETTERS])):
                kept[name] = value
    if text := tag(container):
        kept["tag"] = text
    return ",".join(f"{quote_plus(name)}={quote_plus(kept[name])}" for name in sorted(kept)).encode() + b" "

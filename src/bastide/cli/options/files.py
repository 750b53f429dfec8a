"""Flags that read files or the environment: variables, labels, security profiles."""

from __future__ import annotations

import os

from bastide.cli.grammar import Options, UsageError

_BOM = "\ufeff"


def environment(options: Options) -> list[str]:
    """`--env-file` and `--env`, later ones last; a name alone passes this process's value on."""
    words = [word for path in options.all("env-file") for word in _lines(path, strip=False)]
    return _pass_on(words + options.all("env"))


def _pass_on(words: list[str]) -> list[str]:
    result = []
    for word in words:
        name, mark, _ = word.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {word}")
        if mark:
            result.append(word)
        elif name in os.environ:
            result.append(f"{name}={os.environ[name]}")
    return result


def labels(options: Options) -> dict[str, str]:
    """`--label-file` and `--label`."""
    words = [word for path in options.all("label-file") for word in _lines(path, strip=True)]
    found = {}
    for word in words + options.all("label"):
        name, _, value = word.partition("=")
        if not name:
            raise UsageError(f"invalid label '{word}': empty name")
        found[name] = value
    return found


def _lines(path: str, *, strip: bool) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read().removeprefix(_BOM)
    except UnicodeDecodeError:
        raise UsageError(f"invalid utf8 bytes in {path}") from None
    except OSError as error:
        raise UsageError(f"open {path}: {(error.strerror or '').lower()}") from None
    lines = []
    for raw in content.split("\n"):
        line = raw.strip() if strip else raw.lstrip().removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name:
            raise UsageError(f"invalid env file ({path}): no variable name on line '{line}'")
        if any(character.isspace() for character in name):
            raise UsageError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        lines.append(line)
    return lines


def security(words: list[str]) -> list[str]:
    """`--security-opt`; a seccomp profile is sent as its content, made compact."""
    from bastide.client.codec import decode, encode

    result = []
    for word in words:
        name, _, value = word.replace(":", "=", 1).partition("=") if "=" not in word else word.partition("=")
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            try:
                with open(value, "rb") as file:
                    value = encode(decode(file.read())).decode()
            except OSError as error:
                raise UsageError(f"opening seccomp profile ({value}) failed: {error.strerror}") from None
            except ValueError:
                raise UsageError(f"compacting json for seccomp profile ({value}) failed") from None
            word = f"{name}={value}"
        result.append(word)
    return result

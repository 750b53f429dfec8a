"""`--volume`, `--mount` and `--tmpfs`."""

from __future__ import annotations

import os

from bastide.cli.grammar import Options, UsageError, integer
from bastide.cli.options.quantities import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Object

_SWITCHES = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")
_NAMES = {
    "bind-propagation": ("BindOptions", "Propagation"),
    "image-subpath": ("ImageOptions", "Subpath"),
    "volume-subpath": ("VolumeOptions", "Subpath"),
}
_RECURSION = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}


def read(options: Options, config: Object, host: Object) -> None:
    """Put all mounts where the API wants them."""
    volumes: Object = {}
    binds = []
    for word in options.all("volume"):
        bind = volume(word)
        if bind:
            binds.append(bind)
        else:
            volumes[word] = {}
    if volumes:
        config["Volumes"] = volumes
    if binds:
        host["Binds"] = binds
    if "mount" in options:
        host["Mounts"] = [mount(word) for word in options.all("mount")]
    if "tmpfs" in options:
        host["Tmpfs"] = {path: rest for path, _, rest in (w.partition(":") for w in options.all("tmpfs"))}


def volume(word: str) -> str:
    """A bind `source:target[:mode]` with a local source made absolute; "" when it only names a target."""
    source, colon, rest = word.partition(":")
    if not colon:
        return ""
    if source.startswith(".") or (source.startswith("~") and os.sep in source):
        source = os.path.abspath(os.path.expanduser(source))
    return f"{source}:{rest}"


def mount(word: str) -> Object:
    """One `--mount`: comma-separated `key=value`, quoted as in CSV. Raises UsageError."""
    result: Object = {"Type": "volume"}
    for field in fields(word):
        key, mark, value = field.partition("=")
        key = key.lower()
        if not mark:
            if key not in _SWITCHES:
                raise _bad(word, f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _set(result, key, value, word)
    if not result.get("Target"):
        raise _bad(word, "target is required")
    kind = result["Type"]
    for family in ("BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"):
        if family in result and family != f"{kind.capitalize()}Options":
            raise _bad(word, f"cannot mix '{family[:-7].lower()}-*' options with mount type '{kind}'")
    return result


def _set(result: Object, key: str, value: str, word: str) -> None:
    if key == "type":
        result["Type"] = value.lower()
    elif key in ("source", "src"):
        relative = value.startswith(".")
        result["Source"] = os.path.abspath(value) if relative else value
    elif key in ("target", "dst", "destination"):
        result["Target"] = value
    elif key in ("readonly", "ro"):
        result["ReadOnly"] = _truth(key, value, word)
    elif key == "consistency":
        result["Consistency"] = value.lower()
    elif key in _NAMES:
        family, field = _NAMES[key]
        result.setdefault(family, {})[field] = value
    else:
        _set_more(result, key, value, word)


def _set_more(result: Object, key: str, value: str, word: str) -> None:
    if key == "bind-nonrecursive":
        result.setdefault("BindOptions", {})["NonRecursive"] = _truth(key, value, word)
    elif key == "bind-recursive":
        if value not in _RECURSION:
            raise _bad(word, f"invalid value for {key}: {value}")
        result.setdefault("BindOptions", {}).update(_RECURSION[value])
    elif key == "volume-nocopy":
        result.setdefault("VolumeOptions", {})["NoCopy"] = _truth(key, value, word)
    elif key in ("volume-label", "volume-opt", "volume-driver"):
        options = result.setdefault("VolumeOptions", {})
        name, _, text = value.partition("=")
        if key == "volume-label":
            options.setdefault("Labels", {})[name] = text
        elif key == "volume-driver":
            options.setdefault("DriverConfig", {})["Name"] = value
        else:
            options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = text
    elif key == "tmpfs-size":
        try:
            result.setdefault("TmpfsOptions", {})["SizeBytes"] = size(value)
        except ValueError:
            raise _bad(word, f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        try:
            result.setdefault("TmpfsOptions", {})["Mode"] = integer(f"0o{value}")
        except ValueError:
            raise _bad(word, f"invalid value for {key}: {value}") from None
    else:
        raise _bad(word, f"unexpected key '{key}' in '{key}={value}'")


def fields(word: str) -> list[str]:
    """The fields of one line of CSV (RFC 4180): `a=b,"c=d,e"`. Raises UsageError."""
    found, field, quoted, position = [], "", False, 0
    while position < len(word):
        letter = word[position]
        if letter == '"':
            if quoted and word[position + 1 : position + 2] == '"':
                field += '"'
                position += 1
            else:
                quoted = not quoted
        elif letter == "," and not quoted:
            found.append(field)
            field = ""
        else:
            field += letter
        position += 1
    if quoted:
        raise _bad(word, 'extraneous or missing " in quoted-field')
    return [*found, field]


def _truth(key: str, value: str, word: str) -> bool:
    if value in ("1", "true", "True", "t"):
        return True
    if value in ("0", "false", "False", "f"):
        return False
    raise _bad(word, f"invalid value for {key}: {value}")


def _bad(word: str, reason: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "--mount" flag: {reason}')

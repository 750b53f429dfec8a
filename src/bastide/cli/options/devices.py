"""`--device` and the block I/O limits of devices."""

from __future__ import annotations

from bastide.cli.grammar import Options, UsageError
from bastide.cli.options.quantities import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Object

_RATES = {
    "device-read-bps": "BlkioDeviceReadBps",
    "device-read-iops": "BlkioDeviceReadIOps",
    "device-write-bps": "BlkioDeviceWriteBps",
    "device-write-iops": "BlkioDeviceWriteIOps",
}
_WEIGHTS = range(10, 1001)


def read(options: Options, host: Object) -> None:
    """Put every flag about devices into the HostConfig."""
    if "device" in options:
        cdi = [word for word in options.all("device") if "=" in word and not word.startswith("/")]
        if cdi:
            host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": cdi}]
        host["Devices"] = [device(word) for word in options.all("device") if word not in cdi]
    for flag, field in _RATES.items():
        if flag in options:
            host[field] = [rate(flag, word) for word in options.all(flag)]
    if "blkio-weight-device" in options:
        host["BlkioWeightDevice"] = [weight(word) for word in options.all("blkio-weight-device")]


def device(word: str) -> Object:
    """`host[:container[:permissions]]`. Raises UsageError."""
    parts = word.split(":")
    if len(parts) > 3 or not parts[0]:
        raise UsageError(f"invalid device specification: {word}")
    target, permissions = parts[0], "rwm"
    if len(parts) == 2 and parts[1] and not parts[1].strip("rwm"):
        permissions = parts[1]
    elif len(parts) > 1:
        target = parts[1] or target
        permissions = parts[2] if len(parts) == 3 else permissions
    if permissions.strip("rwm"):
        raise UsageError(f"invalid device mode: {permissions}")
    return {"PathOnHost": parts[0], "PathInContainer": target, "CgroupPermissions": permissions}


def rate(flag: str, word: str) -> Object:
    """`path:rate`; bytes may have a suffix. Raises UsageError."""
    path, _, value = word.rpartition(":")
    try:
        if not path.startswith("/dev/"):
            raise ValueError
        number = size(value) if flag.endswith("bps") else int(value)
        if number < 0:
            raise ValueError
    except ValueError:
        form = "<device-path>:<number>[<unit>]" if flag.endswith("bps") else "<device-path>:<number>"
        raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: the form is {form}') from None
    return {"Path": path, "Rate": number}


def weight(word: str) -> Object:
    """`path:weight`. Raises UsageError."""
    path, _, value = word.rpartition(":")
    if not path.startswith("/dev/") or not value.isdecimal() or int(value) not in (0, *_WEIGHTS):
        raise UsageError(f'invalid argument "{word}" for "--blkio-weight-device" flag: <device-path>:<10-1000>')
    return {"Path": path, "Weight": int(value)}

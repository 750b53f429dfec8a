"""System call filters compiled ahead: libseccomp turns a filter into the kernel's program once, not at each start.

The functions and constants are libseccomp's (seccomp.h, version 2.5). crun takes the program in the
annotation `run.oci.seccomp_bpf_data` (crun(1)); compiling the default filter costs it 19 ms a start.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from bastide.runtime import seccomp

ANNOTATION = "run.oci.seccomp_bpf_data"
CLOSED = msgspec.Raw(b'{"defaultAction":"SCMP_ACT_KILL_PROCESS"}')
"""Stands in the configuration beside the annotation: a program that does not know the annotation lets
nothing run, instead of everything."""

_KILL_PROCESS, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_CTL_NNP, _CTL_OPTIMIZE, _BINARY_TREE = 3, 8, 2
_EEXIST, _UNKNOWN = -17, -1
_COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    return library


def compiled(capabilities: Iterable[str]) -> str | None:
    """The default filter for these capabilities as the annotation's value; None where it cannot be compiled.

    Takes about 25 ms the first time for a set of capabilities; call it off the event loop.
    """
    return _compiled(frozenset(capabilities))


@functools.lru_cache(maxsize=16)
def _compiled(capabilities: frozenset[str]) -> str | None:
    library = _library()
    if library is None:
        return None
    try:
        program = _compile(library, msgspec.json.decode(seccomp.default(capabilities)))
    except (OSError, KeyError):
        return None
    return base64.b64encode(program).decode()


def _compile(library: ctypes.CDLL, profile: dict[str, Any]) -> bytes:
    context = ctypes.c_void_p(
        library.seccomp_init(ctypes.c_uint32(_action(profile, "defaultAction", "defaultErrnoRet")))
    )
    if not context:
        raise OSError("seccomp_init")
    try:
        # crun decides about no_new_privs by the configuration, not libseccomp.
        _done(library.seccomp_attr_set(context, _CTL_NNP, ctypes.c_uint32(0)))
        # A tree over the call numbers: ten comparisons instead of hundreds. Only libseccomp 2.5 and newer.
        _done(library.seccomp_attr_set(context, _CTL_OPTIMIZE, ctypes.c_uint32(_BINARY_TREE)))
        for name in profile.get("architectures", []):
            number = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            _done(library.seccomp_arch_add(context, ctypes.c_uint32(number)), _EEXIST)
        for rule in profile["syscalls"]:
            _add(library, context, rule)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _action(section: dict[str, Any], key: str, errno_key: str) -> int:
    known = {"SCMP_ACT_ALLOW": _ALLOW, "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS}
    action = section[key]
    return _ERRNO | section.get(errno_key, 1) if action == "SCMP_ACT_ERRNO" else known[action]


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, rule: dict[str, Any]) -> None:
    action = ctypes.c_uint32(_action(rule, "action", "errnoRet"))
    wanted = rule.get("args") or []
    comparisons = (_Comparison * len(wanted))(
        *(
            _Comparison(entry["index"], _COMPARISONS[entry["op"]], entry["value"], entry.get("valueTwo", 0))
            for entry in wanted
        )
    )
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # A call that this libseccomp does not know stays forbidden, as with crun and runc.
        if number != _UNKNOWN:
            _done(library.seccomp_rule_add_array(context, action, number, len(wanted), comparisons))


def _export(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        _done(library.seccomp_export_bpf(context, fd))
        size = os.lseek(fd, 0, os.SEEK_CUR)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _done(result: int, *allowed: int) -> None:
    if result < 0 and result not in allowed:
        raise OSError(-result, os.strerror(-result))

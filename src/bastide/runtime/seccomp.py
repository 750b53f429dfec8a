"""System call filters: Docker's profile format to the OCI runtime-spec's.

Format: docs.docker.com/engine/security/seccomp (`archMap`, and rules with `includes` and `excludes` by
capability, architecture and kernel). The default, `seccomp.json`, allows what Docker's default allows.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bastide.model.errors import InvalidArgument

_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}
"""uname's machine to the name in profiles and libseccomp's."""


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = msgspec.field(name="minKernel", default=None)


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    action: str
    name: str = ""
    names: list[str] | None = None
    args: list[dict[str, Any]] | None = None
    errno: int | None = msgspec.field(name="errnoRet", default=None)
    includes: _Condition = _Condition()
    excludes: _Condition = _Condition()


class _Map(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    arch_map: list[_Map] | None = None
    architectures: list[str] | None = None
    flags: list[str] | None = None
    syscalls: list[_Rule] | None = None


def default(capabilities: Iterable[str]) -> msgspec.Raw:
    """The default filter for a process with these capabilities, as JSON."""
    return _default(frozenset(capabilities))


@functools.lru_cache(maxsize=16)
def _default(capabilities: frozenset[str]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(_convert(_built_in(), capabilities)))


@functools.cache
def _built_in() -> _Profile:
    return msgspec.json.decode(Path(__file__).with_name("seccomp.json").read_bytes(), type=_Profile)


def custom(text: str, capabilities: Iterable[str]) -> dict[str, Any]:
    """A filter that the user gave. Raises InvalidArgument in Docker's words."""
    try:
        profile = msgspec.json.decode(text, type=_Profile)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"decoding seccomp profile failed: {error}") from error
    if profile.arch_map and profile.architectures:
        raise InvalidArgument("use either 'architectures' or 'archMap' in the seccomp profile, not both")
    return _convert(profile, frozenset(capabilities))


def _convert(profile: _Profile, capabilities: frozenset[str]) -> dict[str, Any]:
    short, name = _ARCHITECTURES.get(os.uname().machine, ("", ""))
    architectures = list(profile.architectures or [])
    for entry in profile.arch_map or []:
        if entry.architecture == name:
            architectures += [entry.architecture, *(entry.sub_architectures or [])]
    result: dict[str, Any] = {"defaultAction": profile.default_action, "syscalls": []}
    if profile.default_errno_ret is not None:
        result["defaultErrnoRet"] = profile.default_errno_ret
    if architectures:
        result["architectures"] = architectures
    if profile.flags:
        result["flags"] = profile.flags
    for rule in profile.syscalls or []:
        if not _applies(rule, capabilities, short):
            continue
        converted: dict[str, Any] = {"names": rule.names or [rule.name], "action": rule.action}
        if rule.args:
            converted["args"] = rule.args
        if rule.errno is not None:
            converted["errnoRet"] = rule.errno
        result["syscalls"].append(converted)
    return result


def _applies(rule: _Rule, capabilities: frozenset[str], architecture: str) -> bool:
    wanted, unwanted = rule.includes, rule.excludes
    if wanted.arches and architecture not in wanted.arches:
        return False
    if wanted.caps and not capabilities.issuperset(wanted.caps):
        return False
    if wanted.min_kernel and _kernel() < _version(wanted.min_kernel):
        return False
    if unwanted.arches and architecture in unwanted.arches:
        return False
    if unwanted.caps and not capabilities.isdisjoint(unwanted.caps):
        return False
    return not (unwanted.min_kernel and _kernel() >= _version(unwanted.min_kernel))


def _kernel() -> tuple[int, ...]:
    return _version(os.uname().release)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])

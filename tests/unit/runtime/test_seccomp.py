from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from bastide.model.errors import InvalidArgument
from bastide.runtime import filters, seccomp


def default(*capabilities: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(bytes(seccomp.default(capabilities)))
    return result


def allowed(profile: dict[str, Any]) -> set[str]:
    return {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }


def test_default(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    names = allowed(default())
    golden("oci/seccomp.txt", "\n".join(sorted(names)) + "\n")
    assert default()["defaultAction"] == "SCMP_ACT_ERRNO"


def test_dangerous_calls_need_their_capability() -> None:
    never = set("keyctl add_key userfaultfd io_uring_setup kexec_load swapon".split())
    conditional = set("mount bpf unshare setns init_module open_by_handle_at reboot clone3".split())
    assert not allowed(default()) & (never | conditional)
    assert {"mount", "setns", "clone3"} <= allowed(default("CAP_SYS_ADMIN"))
    assert "open_by_handle_at" in allowed(default("CAP_DAC_READ_SEARCH"))
    assert not allowed(default("CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_MODULE")) & never


def rules(profile: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


def test_conditions_on_arguments() -> None:
    (clone,) = rules(default(), "clone")
    assert clone["args"] == [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7E020000, "valueTwo": 0}]
    (clone3,) = rules(default(), "clone3")
    assert clone3["errnoRet"] == 38
    families = {
        rule["args"][0]["value"] for rule in rules(default(), "socket") if rule["args"][0]["op"] == "SCMP_CMP_EQ"
    }
    assert not families & {38, 40}, "AF_ALG and AF_VSOCK stay closed"
    assert {16, 17} <= families, "netlink and packets are for everybody"


def test_custom() -> None:
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"name": "chmod", "action": "SCMP_ACT_ERRNO"},
                {"names": ["chown"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_X"]}},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "excludes": {"minKernel": "4.0"}},
                {"names": ["open"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}},
            ],
        }
    )
    assert seccomp.custom(text, []) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert len(seccomp.custom(text, ["CAP_X"])["syscalls"]) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"defaultAction": 5}', '{"defaultAction":"a","syscalls":{}}'])
def test_custom_must_be_a_profile(text: str) -> None:
    with pytest.raises(InvalidArgument, match="seccomp"):
        seccomp.custom(text, [])


def test_compiled_is_a_program_that_begins_with_the_architecture() -> None:
    program = filters.compiled(["CAP_CHOWN"])
    assert program is not None
    assert filters.compiled(["CAP_CHOWN"]) is program
    data = base64.b64decode(program)
    assert len(data) % 8 == 0
    assert len(data) // 8 < 4096, "the kernel takes no longer one (BPF_MAXINSNS)"
    code, _, _, offset = struct.unpack_from("HBBI", data)
    assert (code, offset) == (0x20, 4), "load word at seccomp_data.arch"

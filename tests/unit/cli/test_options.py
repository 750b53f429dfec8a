"""From flags to the request that creates a container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bastide.cli.grammar import UsageError, parse
from bastide.cli.options import container, devices, mounts, networks, ports, quantities
from bastide.cli.verbs.run import COMMAND


def body(*words: str) -> dict[str, Any]:
    return container.body(parse("run", COMMAND, [*words, "image", "cmd"]))


def test_the_smallest_request() -> None:
    assert body("--rm") == {
        "Image": "image",
        "Cmd": ["cmd"],
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {"AutoRemove": True},
    }


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("64k", 65536),
        ("1.5g", 1610612736),
        ("2MB", 2 << 20),
        ("1GiB", 1 << 30),
        ("-1", -1),
        ("7b", 7),
    ],
)
def test_sizes(word: str, expected: int) -> None:
    assert quantities.size(word) == expected


@pytest.mark.parametrize("word", ["", "x", "1x", "1.2.3", "-5", "1kk", "1gibb", "k"])
def test_bad_sizes(word: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        quantities.size(word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("300ms", 3 * 10**8),
        ("1h30m", 5400 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("-2s", -2 * 10**9),
    ],
)
def test_durations(word: str, expected: int) -> None:
    assert quantities.duration(word) == expected


@pytest.mark.parametrize("word", ["", "5", "1x", "s", "-", "1.2.3s", "1s2"])
def test_bad_durations(word: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        quantities.duration(word)


@pytest.mark.parametrize(("word", "expected"), [("1", 10**9), ("0.5", 5 * 10**8), (".25", 25 * 10**7)])
def test_cpus(word: str, expected: int) -> None:
    assert quantities.nanocpus(word) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("127.0.0.1:8080:80/udp", [("80/udp", "127.0.0.1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("[::1]:8080:80", [("80/tcp", "::1", "8080")]),
        ("1000-1001:80-81", [("80/tcp", "", "1000"), ("81/tcp", "", "1001")]),
        ("1000-1009:80", [("80/tcp", "", "1000-1009")]),
        ("published=8080,target=80,protocol=udp", [("80/udp", "", "8080")]),
    ],
)
def test_ports(word: str, expected: list[tuple[str, str, str]]) -> None:
    assert ports.publish(word) == expected


@pytest.mark.parametrize(
    "word",
    ["", ":", "8080:", "a:80", "99999:80", "80:99999", "1-2:1-3", "80/icmp", "1.2.3:1:1", "x:1:1", "2-1", "host=1"],
)
def test_bad_ports(word: str) -> None:
    with pytest.raises(UsageError):
        ports.publish(word)


def test_ports_in_the_request() -> None:
    made = body("-p", "8080:80", "-p", "8081:80", "--expose", "90-91")
    assert made["ExposedPorts"] == {"80/tcp": {}, "90/tcp": {}, "91/tcp": {}}
    assert [b["HostPort"] for b in made["HostConfig"]["PortBindings"]["80/tcp"]] == ["8080", "8081"]


def test_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = body("-v", "/anon", "-v", "data:/d", "-v", "./x:/x:ro", "--tmpfs", "/t:size=1m", "--tmpfs", "/u")
    assert made["Volumes"] == {"/anon": {}}
    assert made["HostConfig"]["Binds"] == ["data:/d", f"{tmp_path}/x:/x:ro"]
    assert made["HostConfig"]["Tmpfs"] == {"/t": "size=1m", "/u": ""}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("type=bind,src=/a,dst=/b,ro", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("src=v,target=/b", {"Type": "volume", "Source": "v", "Target": "/b"}),
        (
            'type=volume,dst=/b,"volume-opt=o=a,b",volume-driver=local,volume-nocopy',
            {
                "Type": "volume",
                "Target": "/b",
                "VolumeOptions": {"DriverConfig": {"Options": {"o": "a,b"}, "Name": "local"}, "NoCopy": True},
            },
        ),
        (
            "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
        ),
        (
            "type=bind,src=/a,dst=/b,bind-propagation=rshared,bind-recursive=disabled",
            {
                "Type": "bind",
                "Source": "/a",
                "Target": "/b",
                "BindOptions": {"Propagation": "rshared", "NonRecursive": True},
            },
        ),
    ],
)
def test_mounts(word: str, expected: dict[str, Any]) -> None:
    assert mounts.mount(word) == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("type=bind", "target is required"),
        ("foo", "must be a key=value pair"),
        ("type=bind,dst=/a,foo=x", "unexpected key 'foo'"),
        ("dst=/a,ro=maybe", "invalid value for ro: maybe"),
        ("type=bind,dst=/a,tmpfs-size=1m", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
        ('dst="/a', "quoted-field"),
        ("type=tmpfs,dst=/a,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
    ],
)
def test_bad_mounts(word: str, reason: str) -> None:
    with pytest.raises(UsageError) as raised:
        mounts.mount(word)
    assert reason in str(raised.value)
    assert str(raised.value).startswith(f'invalid argument "{word}" for "--mount" flag: ')


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED", "on")
    monkeypatch.delenv("UNSET", raising=False)
    file = tmp_path / "env"
    file.write_text("\ufeff# comment\n\n  A=file \nPASSED\nB=x=y\n")
    made = body("-e", "A=flag", "-e", "UNSET", "--env-file", str(file))
    assert made["Env"] == ["A=file ", "PASSED=on", "B=x=y", "A=flag"]


@pytest.mark.parametrize("line", ["=x", "a b=c"])
def test_bad_environment_file(tmp_path: Path, line: str) -> None:
    file = tmp_path / "env"
    file.write_text(line)
    with pytest.raises(UsageError, match="invalid env file"):
        body("--env-file", str(file))
    with pytest.raises(UsageError, match="no such file"):
        body("--env-file", str(file) + "x")


def test_labels(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text(" a=1 \nb\n")
    assert body("-l", "a=2", "--label-file", str(file), "-l", "c=d=e")["Labels"] == {"a": "2", "b": "", "c": "d=e"}


def test_networks() -> None:
    made = body("--network", "web", "--network-alias", "a", "--ip", "10.0.0.2")
    assert made["HostConfig"]["NetworkMode"] == "web"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "web": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.2"}}
    }
    assert "NetworkingConfig" not in body("--net", "host")
    both = body("--network", "name=a,alias=x,driver-opt=k=v", "--network", "b")
    assert both["HostConfig"]["NetworkMode"] == "a"
    assert both["NetworkingConfig"]["EndpointsConfig"] == {"a": {"Aliases": ["x"], "DriverOpts": {"k": "v"}}, "b": {}}


@pytest.mark.parametrize("words", [["--network", "a", "--network", "a"], ["--network", "host", "--network", "b"]])
def test_conflicting_networks(words: list[str]) -> None:
    with pytest.raises(UsageError):
        body(*words)


@pytest.mark.parametrize("word", ["alias=x", "name=a,foo=b", "name=a,x"])
def test_bad_networks(word: str) -> None:
    with pytest.raises(UsageError):
        networks.network(word)


def test_devices() -> None:
    assert devices.device("/dev/a:/dev/b:r") == {
        "PathOnHost": "/dev/a",
        "PathInContainer": "/dev/b",
        "CgroupPermissions": "r",
    }
    assert devices.device("/dev/a:rm")["CgroupPermissions"] == "rm"
    made = body("--device", "vendor.com/class=dev", "--device-read-bps", "/dev/sda:1m", "--device", "/dev/null")
    assert made["HostConfig"]["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=dev"]}]
    assert made["HostConfig"]["BlkioDeviceReadBps"] == [{"Path": "/dev/sda", "Rate": 1 << 20}]
    assert made["HostConfig"]["Devices"][0]["PathInContainer"] == "/dev/null"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "all"], "--gpus is not supported"),
        (["--rm", "--restart", "always"], "cannot specify both --restart and --rm"),
        (["--restart", "on-failure:x"], "maximum retry count must be an integer"),
        (["--ulimit", "nofile"], "name=soft"),
        (["--ulimit", "nofile=2:1"], "soft limit must be less than or equal to hard limit: 2 > 1"),
        (["--no-healthcheck", "--health-cmd", "x"], "conflicts with --health-"),
        (["--health-interval", "-1s"], "cannot be negative"),
        (["--expose", "1:2"], "invalid port format for --expose"),
        (["-e", "=x"], "invalid environment variable: =x"),
        (["--device", "/dev/a:/b:q"], "invalid device mode: q"),
        (["--blkio-weight-device", "/dev/a:5"], "10-1000"),
        (["--security-opt", "seccomp=/nowhere"], "opening seccomp profile"),
    ],
)
def test_what_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        body(*words)


def test_the_rest() -> None:
    made = body(
        *("--health-cmd", "true", "--health-interval", "5s", "--health-retries", "3", "--health-start-period", "1m"),
        *("--restart", "on-failure:3", "--log-driver", "local", "--log-opt", "max-size=1m", "--ulimit", "nofile=1:2"),
        *("--sysctl", "a=b", "--isolation", "vm", "--runtime", "runc", "--entrypoint", "sh", "-m", "64m"),
        *("--cpus", "1.5", "--init", "-i", "--stop-timeout", "3", "--hostname", "h", "--annotation", "x=y"),
    )
    host = made["HostConfig"]
    assert made["Healthcheck"] == {
        "Test": ["CMD-SHELL", "true"],
        "Interval": 5 * 10**9,
        "Retries": 3,
        "StartPeriod": 60 * 10**9,
    }
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-size": "1m"}}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert (host["Isolation"], host["Runtime"], host["Memory"]) == ("vm", "runc", 64 << 20)
    assert (host["NanoCpus"], host["Init"], host["Sysctls"]) == (1_500_000_000, True, {"a": "b"})
    assert (made["Entrypoint"], made["OpenStdin"], made["StdinOnce"]) == (["sh"], True, False)
    assert (made["StopTimeout"], made["Hostname"], host["Annotations"]) == (3, "h", {"x": "y"})


def test_a_seccomp_profile_goes_as_its_content(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    made = body("--security-opt", f"seccomp={profile}", "--security-opt", "seccomp=unconfined")
    assert made["HostConfig"]["SecurityOpt"] == [
        'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',
        "seccomp=unconfined",
    ]
    os.truncate(profile, 3)
    with pytest.raises(UsageError, match="compacting json"):
        body("--security-opt", f"seccomp={profile}")


def test_every_flag_goes_somewhere() -> None:
    """A flag that `run` takes but nobody reads would be ignored in silence."""
    from bastide.cli.options import flags

    read_elsewhere = {"attach", "insecure-options", "interactive", "name", "platform", "pull", "quiet"}
    special = {
        *container._NETWORK,
        *container._PORTS,
        *container._MOUNTS,
        *container._DEVICES,
        *container._HEALTH,
        *container._MAPS,
        *("entrypoint", "env", "env-file", "label", "label-file", "restart", "log-driver", "log-opt"),
        *("ulimit", "security-opt", "gpus"),
    }
    names = {flag[0] for flag in flags.CREATE}
    assert names == set(flags.CONFIG) | set(flags.HOST) | special | read_elsewhere

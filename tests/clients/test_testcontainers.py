"""testcontainers-python, as test suites use it."""

from __future__ import annotations

import urllib.request

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs
from tests.clients.conftest import Docker


@pytest.fixture(autouse=True)
def environment(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reaper's image would come from Docker Hub: it is turned off."""
    monkeypatch.setenv("DOCKER_HOST", docker.host)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)


def test_a_service_that_is_waited_for() -> None:
    command = ["sh", "-c", "echo ready; exec httpd -f -h /var/www"]
    with DockerContainer("busybox").with_command(command).with_exposed_ports(80) as service:
        wait_for_logs(service, "ready", timeout=20)
        address = f"http://{service.get_container_host_ip()}:{service.get_exposed_port(80)}/index.html"
        with urllib.request.urlopen(address, timeout=10) as page:
            assert b"hello from the image" in page.read()
        assert service.exec(["echo", "inside"]).output == b"inside\n"
        out, _ = service.get_logs()
        assert out == b"ready\n"


def test_a_network_of_its_own() -> None:
    with Network() as network:
        server = DockerContainer("busybox").with_command(["sleep", "1000"]).with_network(network)
        with server.with_network_aliases("server"):
            with DockerContainer("busybox").with_command(["sleep", "1000"]).with_network(network) as peer:
                assert peer.exec(["ping", "-c", "1", "-W", "5", "server"]).exit_code == 0


def test_environment_and_volumes(tmp_path: object) -> None:
    with open(f"{tmp_path}/file", "w") as file:
        file.write("shared")
    made = DockerContainer("busybox").with_env("A", "b").with_volume_mapping(str(tmp_path), "/mnt", "ro")
    with made.with_command(["sleep", "1000"]) as container:
        assert container.exec(["sh", "-c", "echo $A; cat /mnt/file"]).output == b"b\nshared"

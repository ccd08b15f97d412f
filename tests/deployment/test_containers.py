"""The Dockerfile, the compose file and the manifests of the pages, and files of programs that are not here."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from tests.deployment.proxies import configuration

KUBERNETES_VERSION = "1.33"
BIN = Path(sys.executable).parent


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that this environment has."""
    path = shutil.which(program, path=str(BIN))
    assert path is not None, f"{program} is not installed"
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


def test_the_dockerfile_has_no_fault_that_hadolint_knows(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(configuration("containers", "dockerfile"))
    done = run("hadolint", "--failure-threshold", "info", str(tmp_path / "Dockerfile"))
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_starts_the_server_without_a_shell() -> None:
    lines = configuration("containers", "dockerfile").replace("\\\n", "")
    (command,) = re.findall(r"^CMD (.+)$", lines, re.MULTILINE)
    assert json.loads(command)[:2] == ["uvicorn", "mysite.asgi:application"]


def test_the_compose_file_is_one_of_the_specification(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(configuration("containers", "yaml"))
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(tmp_path / "compose.yaml"))
    assert done.returncode == 0, done.stdout


def test_the_compose_file_refers_to_its_own_parts() -> None:
    compose = yaml.safe_load(configuration("containers", "yaml"))
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
        for needed, condition in service.get("depends_on", {}).items():
            assert condition["condition"] != "service_healthy" or "healthcheck" in services[needed]
    grace = int(re.findall(r'"--timeout-graceful-shutdown", "(\d+)"', configuration("containers", "dockerfile"))[0])
    assert grace < int(services["streams"]["stop_grace_period"].removesuffix("s"))


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(configuration("kubernetes", "yaml")))


def manifest(kind: str) -> dict[str, Any]:
    (result,) = [one for one in manifests() if one["kind"] == kind]
    return result


@pytest.mark.parametrize("one", manifests(), ids=lambda one: str(one["kind"]))
def test_the_manifests_follow_the_schemas_of_kubernetes(one: dict[str, Any]) -> None:
    validate(one, KUBERNETES_VERSION, strict=True)


def test_a_pod_has_the_time_to_drain_and_its_probes_name_a_host() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = int(container["args"][container["args"].index("--timeout-graceful-shutdown") + 1])
    assert sleep + grace < pod["terminationGracePeriodSeconds"]
    for name, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        request = container[name]["httpGet"]
        assert request["path"] == path
        assert [header["name"] for header in request["httpHeaders"]] == ["Host"]


def test_the_manifests_refer_to_each_other() -> None:
    deployment, service, ingress = manifest("Deployment"), manifest("Service"), manifest("Ingress")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert labels == manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    (port,) = service["spec"]["ports"]
    assert backend == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert port["targetPort"] in [one["name"] for one in container["ports"]]


def test_the_files_of_other_programs_can_be_read() -> None:
    traefik = yaml.safe_load(configuration("traefik", "yaml"))["http"]
    router = traefik["routers"]["streams"]
    balancer = traefik["services"][router["service"]]["loadBalancer"]
    assert balancer["serversTransport"] in traefik["serversTransports"]
    (database,) = yaml.safe_load(configuration("databases", "yaml"))["dbs"]
    assert [replica["type"] for replica in database["replicas"]] == ["s3"]

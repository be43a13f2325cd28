"""Rendered files, checked by the clients and schemas of what is to run them: Docker Compose and Kubernetes.
`make environments` installs those (requirements/deploy-tools.txt) beside the interpreter that runs slow tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_render import shipped_models

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
KUBERNETES_VERSIONS = ("1.30", "1.37")
CHECK_MANIFESTS = """
import sys, yaml, kubernetes_validate
for document in yaml.safe_load_all(open(sys.argv[1])):
    for version in sys.argv[2:]:
        kubernetes_validate.validate(document, version, strict=True)
    print(document["kind"])
"""

pytestmark = pytest.mark.slow


def rendered(target: str, config: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "coe", "deploy", "render", "--target", target, "--config", str(config)]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def output(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "config", ["experts.yaml", "deploy/experts.gpu.yaml", "deploy/experts.paper.yaml", "deploy/experts.retrieval.yaml"]
)
def test_docker_compose_takes_the_project(config: str, tmp_path: Path) -> None:
    file = shipped_models(tmp_path) if config == "experts.yaml" else ROOT / config
    out = rendered("compose", file, tmp_path / "out")
    lines = (out / "environment.example").read_text().splitlines()
    (out / "environment").write_text("".join(f"{line}x\n" for line in lines if line.endswith("=")))
    command = (str(TOOLS / "docker-compose"), "--env-file", "environment", "config", "--services")
    assert {"gateway", "first-router", "valkey", "postgres"} <= set(output(*command, folder=out).split())


@pytest.mark.parametrize("config", ["experts.gpu.yaml", "experts.retrieval.yaml"])
def test_kubernetes_takes_the_manifests(config: str, tmp_path: Path) -> None:
    out = rendered("kubernetes", ROOT / "deploy" / config, tmp_path)
    for file, wanted in (
        ("gateway.yaml", {"ConfigMap", "Job", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}),
        ("engines.yaml", {"PersistentVolumeClaim", "NetworkPolicy", "Service", "Deployment"}),
    ):
        script = (str(TOOLS / "python"), "-c", CHECK_MANIFESTS, file, *KUBERNETES_VERSIONS)
        assert wanted <= set(output(*script, folder=out).split())

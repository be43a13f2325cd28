"""Kubernetes: the gateway as manifests; the engines as values for vLLM's production stack, scaled by KEDA."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from gateway.deploy.deployment import ADAPTERS_AT, Deployment, environment_example, yaml_text
from gateway.deploy.vllm_stack import engine_url, scaled_objects, stack_values
from router.retrieval_config import IndexKind

LABELS = {"app.kubernetes.io/name": "coe", "app.kubernetes.io/component": "gateway"}
SECRET = "coe-environment"
DATA, ADAPTERS = "coe-data", "coe-adapters"
USER = 10001
PORT = 8000
FEWEST, MOST = 2, 10
"""Gateways. Two, so that one may be restarted; the most is to be edited (ours)."""

READY = """\
import os, urllib.request as r
key = os.environ["COE_API_KEYS"].split(",")[0].strip()
r.urlopen(r.Request("http://127.0.0.1:8000/readyz", headers={"authorization": "Bearer " + key}), timeout=2)
"""
"""A probe by HTTP could not read its key from the secret."""


def files(deployment: Deployment) -> dict[str, str]:
    has_index = deployment.config.retrieval is not None
    deployment, stack = with_shared_index(deployment), bool(deployment.engines)
    header = deployment.header(
        f"The image: docker build -f deploy/Containerfile --build-arg LOCK={deployment.lock} -t {deployment.image} .",
        "Redis (or Valkey) and Postgres are those that you run: their addresses are in the secret.",
        *(["Postgres needs the extension pgvector: all gateways share one index of vector stores."] * has_index),
        f"  kubectl create secret generic {SECRET} --from-env-file=environment",
        "  kubectl apply -k .",
    )
    resources = ["gateway.yaml", *(["scaling.yaml"] if stack else [])]
    rendered = {
        "kustomization.yaml": header
        + yaml_text({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}),
        "gateway.yaml": deployment.header() + yaml_text(*manifests(deployment)),
        "environment.example": environment_example(deployment, ["REDIS_URL", "DATABASE_URL"]),
    }
    if stack:
        needed = "KEDA and Prometheus are in the cluster; edit serverAddress if Prometheus is elsewhere."
        rendered["scaling.yaml"] = deployment.header(needed) + yaml_text(*scaled_objects(deployment))
        rendered["vllm-values.yaml"] = deployment.header(
            "  helm repo add vllm https://vllm-project.github.io/production-stack",
            "  helm install vllm vllm/vllm-stack -f vllm-values.yaml",
        ) + yaml_text(stack_values(deployment, SECRET, ADAPTERS))
    return rendered


def with_shared_index(deployment: Deployment) -> Deployment:
    """The deployment with vector stores in Postgres: only one of several gateways could open a local index."""
    if deployment.config.retrieval is None:
        return deployment
    values = deepcopy(deployment.values)
    values["retrieval"].setdefault("stores", {})["index"] = IndexKind.PGVECTOR.value
    return replace(deployment, values=values)


def manifests(deployment: Deployment) -> list[dict[str, Any]]:
    """Objects that `kubectl apply` makes, in this order."""
    experts = deployment.header() + deployment.experts_yaml(lambda unit: [engine_url(unit)])
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named("coe"), "data": {"experts.yaml": experts}},
        claim(DATA, "20Gi"),
        *([claim(ADAPTERS, "10Gi")] if deployment.adapters else []),
        first_router(deployment),
        gateway(deployment),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": named("coe"),
            "spec": {"selector": LABELS, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
        },
        autoscaler(),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": named("coe"),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}},
        },
    ]


def named(name: str) -> dict[str, Any]:
    return {"name": name, "labels": LABELS}


def claim(name: str, size: str) -> dict[str, Any]:
    """A volume that pods of several hosts write."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": named(name), "spec": spec}


def first_router(deployment: Deployment) -> dict[str, Any]:
    """Grades the experts and fits a router, once; gateways are not ready before."""
    labels = LABELS | {"app.kubernetes.io/component": "first-router"}
    spec = pod(deployment, {"name": "first-router", "args": ["up", "--once", "--port", "0"]})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "coe-first-router", "labels": labels},
        "spec": {
            "backoffLimit": 10,
            "ttlSecondsAfterFinished": 600,  # so that it can be applied again, which another image could not be
            "template": {"metadata": {"labels": labels}, "spec": {**spec, "restartPolicy": "OnFailure"}},
        },
    }


def gateway(deployment: Deployment) -> dict[str, Any]:
    """As many gateways as the autoscaler says, of which a new one is ready before an old one ends."""
    container = {
        "name": "gateway",
        "args": ["serve"],
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 3},
        "readinessProbe": {
            "exec": {"command": ["python", "-c", READY]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 1,
        },
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": LABELS},
    }
    spec = pod(deployment, container) | {
        "terminationGracePeriodSeconds": deployment.grace_s,
        "topologySpreadConstraints": [spread],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": named("coe"),
        "spec": {
            "selector": {"matchLabels": LABELS},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": LABELS}, "spec": spec},
        },
    }


def pod(deployment: Deployment, container: dict[str, Any]) -> dict[str, Any]:
    """A pod of our image: not root, a root that is read-only, everything kept on the shared volume."""
    mounts = {"data": "/data", "config": "/config", "tmp": "/tmp"}
    volumes: list[dict[str, Any]] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": DATA}},
        {"name": "config", "configMap": {"name": "coe"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if deployment.adapters:
        mounts["adapters"] = ADAPTERS_AT
        volumes.append({"name": "adapters", "persistentVolumeClaim": {"claimName": ADAPTERS}})
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                **container,
                "image": deployment.image,
                "envFrom": [{"secretRef": {"name": SECRET}}],
                # The volume belongs to root; a folder within it belongs to the gateways alone.
                "env": [{"name": "COE_DATA_DIR", "value": "/data/coe"}],
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "4Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
            }
        ],
        "volumes": volumes,
    }


def autoscaler() -> dict[str, Any]:
    """One gateway more where they are busy for 70% of the core that each asks for."""
    busy = {"type": "Utilization", "averageUtilization": 70}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": named("coe"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "coe"},
            "minReplicas": FEWEST,
            "maxReplicas": MOST,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": busy}}],
        },
    }

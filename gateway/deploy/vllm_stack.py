"""Values of vLLM's production stack (chart `vllm-stack`), one entry a vLLM server, and KEDA's objects that scale them.

The gateway asks the services of the engines, so the chart's own router stays off. KEDA's objects are apart from the
values: the chart's schema takes one trigger where its template needs a list.
"""

from __future__ import annotations

import math
from typing import Any

from fleet.vllm_command import flag_arguments, lora_arguments
from gateway.deploy.deployment import (
    ADAPTERS_AT,
    ENGINE_CPUS,
    ENGINE_KEY,
    ENGINE_MEMORY,
    WAITING_PER_REPLICA,
    Deployment,
    EngineUnit,
)

RELEASE = "vllm"
PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
GB_PER_BILLION, SPARE_GB = 2.2, 10
"""Disk for weights of 16 bits each, a tenth more, and for the rest of a model's files."""

VALUES = {
    "max-model-len": "maxModelLen",
    "dtype": "dtype",
    "tensor-parallel-size": "tensorParallelSize",
    "max-num-seqs": "maxNumSeqs",
    "gpu-memory-utilization": "gpuMemoryUtilization",
    "enable-prefix-caching": "enablePrefixCaching",
}
"""Flags that have a key of their own in the chart; the others are its `extraArgs`."""


def engine_url(unit: EngineUnit) -> str:
    """API root of the service that the chart makes for an entry."""
    return f"http://{RELEASE}-{unit.name}-engine-service/v1"


def stack_values(deployment: Deployment, secret: str, adapters_claim: str) -> dict[str, Any]:
    tries = math.ceil(deployment.config.engines.vllm.start_timeout_s / 10)
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10}
    return {
        "servingEngineSpec": {
            "enableEngine": True,
            "vllmApiKey": {"secretName": secret, "secretKey": ENGINE_KEY},
            "startupProbe": {**probe, "initialDelaySeconds": 15, "failureThreshold": tries},
            "serviceMonitor": {"enabled": True},
            "modelSpec": [model_spec(unit, deployment, secret, adapters_claim) for unit in deployment.engines],
        },
        "routerSpec": {"enableRouter": False},
    }


def model_spec(unit: EngineUnit, deployment: Deployment, secret: str, adapters_claim: str) -> dict[str, Any]:
    token = {"secretKeyRef": {"name": secret, "key": "HF_TOKEN", "optional": True}}
    repository, _, tag = deployment.vllm_image.rpartition(":")
    process = unit.process
    size_b = max(deployment.config.experts[name].params_b for name in process.experts)
    spec: dict[str, Any] = {
        "name": unit.name,
        "repository": repository,
        "tag": tag,
        "modelURL": process.model,
        "replicaCount": process.replicas,
        "requestCPU": ENGINE_CPUS,
        "requestMemory": ENGINE_MEMORY,
        "requestGPU": unit.gpus,
        "pvcStorage": f"{math.ceil(size_b * GB_PER_BILLION) + SPARE_GB}Gi",
        "pvcAccessMode": ["ReadWriteMany"],
        "vllmConfig": vllm_config(unit),
        "env": [
            *({"name": name, "value": value} for name, value in unit.env.items()),
            {"name": "HF_TOKEN", "valueFrom": token},
        ],
    }
    if process.adapters:
        claim = {"claimName": adapters_claim, "readOnly": True}
        spec["extraVolumes"] = [{"name": "adapters", "persistentVolumeClaim": claim}]
        spec["extraVolumeMounts"] = [{"name": "adapters", "mountPath": ADAPTERS_AT, "readOnly": True}]
    return spec


def vllm_config(unit: EngineUnit) -> dict[str, Any]:
    """The flags. The chart turns prefix caching off unless it is asked for, vLLM on."""
    flags = dict(unit.process.flags)
    named: dict[str, Any] = {"enablePrefixCaching": flags.pop("no-enable-prefix-caching", False) is not True}
    named |= {VALUES[flag]: flags.pop(flag) for flag in list(flags) if flag in VALUES}
    served = ["--served-model-name", *unit.process.served_names]
    extra = [*served, *lora_arguments(unit.process.adapters), *flag_arguments(flags)]
    return {**named, "extraArgs": extra}


def scaled_objects(deployment: Deployment) -> list[dict[str, Any]]:
    """A KEDA object for each engine: one replica more where requests wait."""
    return [
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": f"{RELEASE}-{unit.name}"},
            "spec": {
                "scaleTargetRef": {"name": f"{RELEASE}-{unit.name}-deployment-vllm"},
                "minReplicaCount": unit.process.replicas,
                "maxReplicaCount": unit.most,
                "pollingInterval": 15,
                "cooldownPeriod": 300,
                "triggers": [
                    {
                        "type": "prometheus",
                        "metadata": {
                            "serverAddress": PROMETHEUS,
                            "query": f'sum(vllm:num_requests_waiting{{model_name="{unit.process.served_names[0]}"}})',
                            "threshold": str(WAITING_PER_REPLICA),
                        },
                    }
                ],
            },
        }
        for unit in deployment.engines
    ]

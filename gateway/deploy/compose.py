"""Docker Compose: gateway, Valkey, Postgres, and a vLLM server for each model, on one host."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from typing import Any

from fleet.vllm_command import named_gpus
from gateway.deploy.deployment import ADAPTERS_AT, ENGINE_KEY, Deployment, EngineUnit, environment_example, yaml_text
from router.retrieval_config import IndexKind

ENGINE_PORT = 8000
HEALTH = "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/health', timeout=2)"


def files(deployment: Deployment) -> dict[str, str]:
    database = "postgresql+psycopg://coe:${POSTGRES_PASSWORD:?set it in the environment file}@postgres/coe"
    addresses = {
        "REDIS_URL": "redis://:${VALKEY_PASSWORD:?set it in the environment file}@valkey:6379/0",
        "DATABASE_URL": database,
    }
    engines = deployment.replicas
    gpus = gpus_of(engines)

    def roots_of(unit: EngineUnit) -> list[str]:
        alike = (each.name for each in engines if each.process.experts == unit.process.experts)
        return [f"http://vllm-{name}:{ENGINE_PORT}/v1" for name in alike]

    project = {
        "name": "coe",
        "services": {
            **stores(deployment),
            **{f"vllm-{unit.name}": engine(unit, deployment, gpus[unit.name]) for unit in engines},
            **gateways(deployment, addresses),
        },
        "volumes": {name: {} for name in ("data", "valkey", "postgres", *(["models"] if engines else []))},
    }
    header = deployment.header(
        f"The image: docker build -f deploy/Containerfile --build-arg LOCK={deployment.lock} -t {deployment.image} .",
        "Then, in this folder:",
        "  cp environment.example environment && chmod 600 environment    # and fill it in",
        "  docker compose --env-file environment up",
        "The first start grades the experts and fits a router (service `first-router`); later starts find it.",
        *(f"vllm-{name} has GPU {', '.join(ids)}." for name, ids in gpus.items()),
    )
    variables = ["VALKEY_PASSWORD", "POSTGRES_PASSWORD"]
    return {
        "compose.yaml": header + yaml_text(project),
        "config/experts.yaml": deployment.header() + deployment.experts_yaml(roots_of),
        "environment.example": environment_example(deployment, variables),
    }


def gpus_of(units: Sequence[EngineUnit]) -> dict[str, list[str]]:
    """GPUs of each engine: those that experts.yaml names, otherwise the next ones that nobody names. Docker would give
    the first ones to all."""
    named = {unit.name: named_gpus(unit.process.env) for unit in units}
    taken = {each for ids in named.values() for each in ids}
    free = (number for number in map(str, count()) if number not in taken)
    return {unit.name: named[unit.name] or list(islice(free, unit.gpus)) for unit in units}


def stores(deployment: Deployment) -> dict[str, Any]:
    """Valkey and Postgres. Of Valkey the decision log needs: nothing acknowledged is lost, nothing is evicted."""
    retrieval = deployment.config.retrieval
    has_vectors = retrieval is not None and retrieval.stores.index is IndexKind.PGVECTOR
    kept = "--appendonly yes --appendfsync always --maxmemory-policy noeviction"
    return {
        "valkey": {
            "image": "docker.io/valkey/valkey:8",
            "command": f'valkey-server {kept} --requirepass "${{VALKEY_PASSWORD}}"',
            "environment": {"REDISCLI_AUTH": "${VALKEY_PASSWORD}"},
            "volumes": ["valkey:/data"],
            "restart": "unless-stopped",
            "healthcheck": {"test": ["CMD", "valkey-cli", "ping"], "interval": "5s"},
        },
        "postgres": {
            "image": "docker.io/pgvector/pgvector:pg17" if has_vectors else "docker.io/library/postgres:17",
            "environment": {
                "POSTGRES_USER": "coe",
                "POSTGRES_DB": "coe",
                "POSTGRES_PASSWORD": "${POSTGRES_PASSWORD}",
            },
            "volumes": ["postgres:/var/lib/postgresql/data"],
            "restart": "unless-stopped",
            "healthcheck": {"test": ["CMD", "pg_isready", "-U", "coe"], "interval": "5s"},
        },
    }


def engine(unit: EngineUnit, deployment: Deployment, gpus: list[str]) -> dict[str, Any]:
    """A vLLM server that only the other services reach."""
    words = list(unit.process.argv[1:])
    words[words.index("--host") + 1], words[words.index("--port") + 1] = "0.0.0.0", str(ENGINE_PORT)
    reserved = {"driver": "nvidia", "device_ids": gpus, "capabilities": ["gpu"]}
    secrets = {ENGINE_KEY: f"${{{ENGINE_KEY}:?set it in the environment file}}", "HF_TOKEN": "${HF_TOKEN:-}"}
    test = ["CMD", "python3", "-c", HEALTH.format(port=ENGINE_PORT)]
    start_s = int(deployment.config.engines.vllm.start_timeout_s)
    return {
        "image": deployment.vllm_image,
        "entrypoint": ["python3"],
        "command": words,
        "environment": {**unit.env, "HF_HOME": "/models", **secrets},
        "shm_size": "16gb",
        "volumes": ["models:/models", *adapter_mounts(deployment)],
        "deploy": {"resources": {"reservations": {"devices": [reserved]}}},
        "restart": "unless-stopped",
        "healthcheck": {"test": test, "interval": "10s", "start_period": f"{start_s}s"},
    }


def adapter_mounts(deployment: Deployment) -> list[str]:
    return [f"./adapters:{ADAPTERS_AT}:ro"] if deployment.adapters else []


def gateways(deployment: Deployment, addresses: dict[str, str]) -> dict[str, Any]:
    """The service that fits the first router and ends, and the gateway, which waits for it."""
    shared = {
        "image": deployment.image,
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "env_file": "environment",
        "environment": addresses,
        "volumes": ["data:/data", "./config:/config:ro", *adapter_mounts(deployment)],
    }
    services = ("valkey", "postgres", *(f"vllm-{unit.name}" for unit in deployment.replicas))
    ready = {name: {"condition": "service_healthy"} for name in services}
    return {
        "first-router": {**shared, "command": ["up", "--once", "--port", "0"], "depends_on": ready},
        "gateway": {
            **shared,
            "command": ["serve"],
            "ports": ["8000:8000"],
            "restart": "unless-stopped",
            "stop_grace_period": f"{deployment.grace_s}s",
            "depends_on": {**ready, "first-router": {"condition": "service_completed_successfully"}},
        },
    }

"""Docker Compose: gateway, Valkey, Postgres, and a vLLM server for each model, on one host."""

from __future__ import annotations

from typing import Any

from gateway.deploy.deployment import ADAPTERS_AT, ENGINE_KEY, Deployment, EngineUnit, yaml_text
from gateway.deploy.environment import environment_example

ENGINE_PORT = 8000
HEALTH = "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/health', timeout=2)"


def files(deployment: Deployment) -> dict[str, str]:
    """Contents by name."""
    database = "postgresql+psycopg://coe:${POSTGRES_PASSWORD:?set it in the environment file}@postgres/coe"
    addresses = {
        "REDIS_URL": "redis://:${VALKEY_PASSWORD:?set it in the environment file}@valkey:6379/0",
        "DATABASE_URL": database,
    }
    project = {
        "name": "coe",
        "services": {
            **stores(),
            **{f"vllm-{unit.name}": engine(unit, deployment) for unit in deployment.engines},
            **gateways(deployment, addresses),
        },
        "volumes": {name: {} for name in ("data", "valkey", "postgres", *(["models"] if deployment.engines else []))},
    }
    header = deployment.header(
        f"The image: docker build -f deploy/Containerfile --build-arg LOCK={deployment.lock} -t {deployment.image} .",
        "Then, in this folder:",
        "  cp environment.example environment && chmod 600 environment    # and fill it in",
        "  docker compose --env-file environment up",
        "The first start grades the experts and fits a router (service `first-router`); later starts find it.",
    )
    variables = ["VALKEY_PASSWORD", "POSTGRES_PASSWORD"]
    return {
        "compose.yaml": header + yaml_text(project),
        "config/experts.yaml": deployment.header()
        + deployment.experts_yaml(lambda unit: f"http://vllm-{unit.name}:{ENGINE_PORT}/v1"),
        "environment.example": environment_example(deployment, variables),
    }


def stores() -> dict[str, Any]:
    """Valkey and Postgres. Of Valkey the decision log needs: nothing acknowledged is lost, nothing is evicted."""
    kept = "--appendonly yes --appendfsync always --maxmemory-policy noeviction"
    return {
        "valkey": {
            "image": "docker.io/valkey/valkey:8",
            "command": f'valkey-server {kept} --requirepass "${{VALKEY_PASSWORD}}"',
            "environment": {"REDISCLI_AUTH": "${VALKEY_PASSWORD}"},
            "volumes": ["valkey:/data"],
            "healthcheck": {"test": ["CMD", "valkey-cli", "ping"], "interval": "5s"},
        },
        "postgres": {
            "image": "docker.io/library/postgres:17",
            "environment": {
                "POSTGRES_USER": "coe",
                "POSTGRES_DB": "coe",
                "POSTGRES_PASSWORD": "${POSTGRES_PASSWORD}",
            },
            "volumes": ["postgres:/var/lib/postgresql/data"],
            "healthcheck": {"test": ["CMD", "pg_isready", "-U", "coe"], "interval": "5s"},
        },
    }


def engine(unit: EngineUnit, deployment: Deployment) -> dict[str, Any]:
    """A vLLM server that only the other services reach."""
    words = list(unit.process.argv[1:])
    words[words.index("--host") + 1], words[words.index("--port") + 1] = "0.0.0.0", str(ENGINE_PORT)
    chosen = unit.process.env.get("CUDA_VISIBLE_DEVICES", "")
    gpus: dict[str, Any] = {"device_ids": chosen.split(",")} if chosen else {"count": unit.gpus}
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
        "deploy": {"resources": {"reservations": {"devices": [{"driver": "nvidia", **gpus, "capabilities": ["gpu"]}]}}},
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
    services = ("valkey", "postgres", *(f"vllm-{unit.name}" for unit in deployment.engines))
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

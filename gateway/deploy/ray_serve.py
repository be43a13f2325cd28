"""Ray: the engines as one Ray Serve LLM application, which answers on every node's loopback; the gateway runs beside
it on any of them."""

from __future__ import annotations

from typing import Any

from base.errors import ConfigError
from gateway.deploy.deployment import Deployment, EngineUnit, environment_example, yaml_text


def files(deployment: Deployment) -> dict[str, str]:
    """Contents by name. Raises ConfigError: nothing for Ray to serve, or adapters without `--adapter-store`."""
    if not deployment.engines:
        raise ConfigError(f"{deployment.source}: no expert has engine 'vllm' without a url: nothing for Ray to serve")
    if any(unit.process.adapters for unit in deployment.engines) and deployment.adapter_store is None:
        raise ConfigError("--adapter-store: required, because experts have adapters; allowed: s3://..., gs://...")
    port = deployment.config.engines.vllm.first_port
    application = {
        "name": "experts",
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [llm_config(unit, deployment) for unit in deployment.engines]},
    }
    serve = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [application],
    }
    steps = [
        "On a node of the cluster, with ray[llm] installed and HF_TOKEN in the environment of its nodes where a model",
        "needs it:",
        "  serve deploy serve.yaml",
    ]
    if deployment.adapters:
        steps.insert(0, f"Copy the folders of `adapters` to {deployment.adapter_store} first.")
    return {
        "serve.yaml": deployment.header(*steps) + yaml_text(serve),
        "experts.yaml": deployment.header("For `coe up` and `coe serve` on a node of the cluster.")
        + deployment.experts_yaml(lambda _: [f"http://127.0.0.1:{port}/v1"], served_as, has_key=False),
        "environment.example": environment_example(deployment, ["REDIS_URL", "DATABASE_URL"], has_engine_key=False),
    }


def served_as(unit: EngineUnit, expert: str) -> str:
    """The name that Ray gives an expert: that of its model, and behind it the adapter's folder."""
    model, adapters = unit.process.served_names[0], unit.process.adapters.values()
    return f"{model}:{expert}" if any(folder.name == expert for folder in adapters) else model


def llm_config(unit: EngineUnit, deployment: Deployment) -> dict[str, Any]:
    """One model with its adapters, which Ray loads when they are first asked for."""
    process = unit.process
    kwargs = {flag.replace("-", "_"): value for flag, value in process.flags.items()}
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": process.served_names[0], "model_source": process.model},
        "engine_kwargs": kwargs | ({"enable_lora": True} if process.adapters else {}),
        "deployment_config": {"autoscaling_config": {"min_replicas": process.replicas, "max_replicas": unit.most}},
        "runtime_env": {"env_vars": unit.env},
    }
    if process.adapters:
        config["lora_config"] = {
            "dynamic_lora_loading_path": deployment.adapter_store,
            "max_num_adapters_per_replica": len(process.adapters),
        }
    return config

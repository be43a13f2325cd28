"""The example of the file of secrets: names only."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.deploy.deployment import ENGINE_KEY, Deployment


def environment_example(deployment: Deployment, first: Sequence[str], *, has_engine_key: bool = True) -> str:
    """Every variable that must have a value, those of the target first."""
    engine_key = [ENGINE_KEY] if deployment.engines and has_engine_key else []
    lines = ["# Copy to `environment`, mode 0600. openssl rand -hex 16 makes a password or a key.", *assigned(first)]
    lines += ["# Clients' key (at least 16 random characters); later: coe keys create TEAM", "COE_API_KEYS="]
    if engine_key:
        lines += ["# Key between the gateway and vLLM", *assigned(engine_key)]
    if others := [name for name in deployment.secrets if name not in {*first, *engine_key}]:
        lines += ["# Keys by the names that experts.yaml gives them", *assigned(others)]
    if deployment.engines and has_engine_key:
        lines += ["# For models that the hub gives only to those who signed for them", "# HF_TOKEN="]
    return "\n".join(lines) + "\n"


def assigned(names: Sequence[str]) -> list[str]:
    return [f"{name}=" for name in names]

"""Checks that experts.yaml and a trained router fit each other. Pure: it reads the router's manifest only."""

from __future__ import annotations

from base.errors import ConfigError
from router.artifact import RouterManifest
from router.config import CoeConfig
from router.types import GENERAL


def check_categories(config: CoeConfig, manifest: RouterManifest) -> None:
    """Raises ConfigError when the router names categories that experts.yaml lacks."""
    lacking = sorted(set(manifest.categories) - set(config.learned_categories))
    if lacking:
        raise ConfigError(
            f"router {manifest.version} names categories that experts.yaml lacks: {', '.join(lacking)}; "
            "add them or run `coe train`"
        )


def pin_problems(config: CoeConfig, manifest: RouterManifest) -> list[str]:
    """Pins that a router cannot keep, one sentence each: to what it has not measured, or of what it cannot tell."""
    problems = []
    for name, policy in config.policies.items():
        for category, expert in policy.pins.items():
            where = f"policies.{name}.pins.{category}"
            if expert not in (*manifest.experts, *config.builtins):
                problems.append(
                    f"{where}: router {manifest.version} has not measured '{expert}', so the pin cannot hold: take it "
                    f"out until `coe experts probe {expert} --promote` has put the expert on the map"
                )
            if category not in (*manifest.categories, GENERAL):
                problems.append(
                    f"{where}: router {manifest.version} does not know the category '{category}', so the pin cannot "
                    "hold: take it out until `coe train` has learned the category"
                )
    return problems


def category_warnings(config: CoeConfig, manifest: RouterManifest) -> list[str]:
    """Categories of experts.yaml that no query is sent to, because the router does not know them."""
    unknown = [name for name in config.learned_categories if name not in manifest.categories]
    if not unknown:
        return []
    return [
        f"categories: router {manifest.version} does not know {', '.join(unknown)}; their queries go elsewhere until "
        "`coe train` has learned them"
    ]

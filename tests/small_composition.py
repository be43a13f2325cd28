"""The smallest valid experts.yaml around the experts of a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coe.router.config.composition import CoeConfig, parse_config


def composition_of(experts: Mapping[str, object], **sections: Any) -> dict[str, Any]:
    """Plain values. Sections are added, or take the place of those that are here."""
    return {
        "categories": {"code": "programs", "general": "the rest"},
        "experts": dict(experts),
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
        **sections,
    }


def config_of(experts: Mapping[str, object], **sections: Any) -> CoeConfig:
    return parse_config(composition_of(experts, **sections))

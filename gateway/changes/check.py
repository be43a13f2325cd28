"""All checks that a configuration passes before it is put in force."""

from __future__ import annotations

from pathlib import Path

from base.errors import ConfigError
from fleet.vllm_addresses import read_vllm_addresses
from gateway.changes.difference import restart_problems
from gateway.check import find_problems
from router.agreement import pin_problems
from router.config import CoeConfig, parse_text
from router.live_pointer import live_manifest


def checked(text: str, path: Path, data_dir: Path, started: CoeConfig | None) -> CoeConfig:
    """The configuration that a text means.

    Args:
        path: experts.yaml, in whose folder relative paths begin.
        started: what the gateway started with; None where none has.

    Raises:
        ConfigError: with one problem per fault, those that need a restart among them.
    """
    config, manifest = parse_text(text, file=str(path)), live_manifest(data_dir)
    found = [] if manifest is None else pin_problems(config, manifest)
    if started is not None:
        found += restart_problems(started, config, read_vllm_addresses(data_dir))
    if problems := find_problems(config, path) + [f"{path}: {line}" for line in found]:
        raise ConfigError("\n".join(problems), problems)
    return config

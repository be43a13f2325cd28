"""`coe experts up`: the vLLM engines of this host."""

from __future__ import annotations

from pathlib import Path

from coe.cli import options


def up(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
) -> None:
    """Start the vLLM engines of experts.yaml and keep them running, for `coe up` and `coe serve`."""
    from uvloop import run

    from coe.cli.terminal import Terminal
    from coe.fleet.experts_up import run_experts
    from coe.gateway.settings import engine_environment
    from coe.router.config import load_config

    known, folder = load_config(config), config.resolve().parent
    run(run_experts(known, folder, data_dir.resolve(), engine_environment(known), Terminal()))

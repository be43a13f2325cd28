"""`coe experts up` and `coe experts ls`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from router.options import ConfigOption, DataOption

PIPE_WIDTH = 250
"""A pipe has no width, and `grep` wants one line an expert."""


def up(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    once: Annotated[bool, typer.Option("--once", help="stop them again as soon as all are ready")] = False,
) -> None:
    """Start the vLLM engines of experts.yaml and keep them running until Ctrl-C or SIGTERM."""
    import asyncio

    from fleet.experts_up import run_experts
    from gateway.settings import engine_environment
    from router.config import load_config

    loaded = load_config(config)
    asyncio.run(run_experts(loaded, config.resolve().parent, data_dir.resolve(), engine_environment(loaded), once=once))


def ls(config: ConfigOption = Path("experts.yaml"), data_dir: DataOption = Path("data")) -> None:
    """List the experts of experts.yaml, and where vLLM's answer if they run."""
    from fleet.experts_up import experts_table
    from fleet.vllm_addresses import read_vllm_addresses
    from router.config import load_config
    from router.terminal import Terminal

    console = Terminal()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(experts_table(load_config(config), read_vllm_addresses(data_dir)))

"""The first router: what experts can do is measured through the running gateway, then a router is fitted.

Both are commands of packages that the gateway may not import, so they run as programs, with our terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from base.errors import EngineError
from base.leash import coe_command
from gateway.up_view import UpView

STOP_GRACE_S = 10.0


def collect_arguments(
    base_url: str, experts: Sequence[str], config_path: Path, data_dir: Path, probes: Path | None
) -> list[str]:
    """`coe eval collect`: every expert answers every probe, unless its answer is known."""
    words = ["eval", "collect", "--base-url", base_url, "--experts", ",".join(experts)]
    words += ["--experts-file", str(config_path), "--out", str(data_dir / "outcomes" / "probes")]
    return words if probes is None else [*words, "--probes", str(probes)]


def train_arguments(config_path: Path, data_dir: Path) -> list[str]:
    """`coe train`: fits a router from the seed set and the outcomes, and makes it the live one."""
    return ["train", "--config", str(config_path), "--data-dir", str(data_dir)]


async def run_coe(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs `coe ARGUMENTS` with our terminal; ends it when we are cancelled.

    Raises:
        EngineError: it failed; its own words are on the terminal already.
    """
    child = await asyncio.create_subprocess_exec(
        *coe_command(*arguments), stdin=asyncio.subprocess.DEVNULL, env=environment
    )
    try:
        status = await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), STOP_GRACE_S)
            except TimeoutError:
                child.kill()
                await child.wait()
    if status != 0:
        raise EngineError(f"`coe {arguments[0]}` failed with exit status {status}; its message is above")


async def make_first_router(
    view: UpView, collect: Sequence[str], train: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Measures the experts and fits the first router.

    Raises:
        EngineError: measuring or fitting failed.
    """
    view.command("measuring what every expert can do", ["coe", *collect])
    await run_coe(collect, environment)
    view.command("fitting the router", ["coe", *train])
    await run_coe(train, environment)

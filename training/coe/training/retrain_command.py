"""Rounds of `coe retrain`: one, or one every period."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from coe.base.errors import DataError, RouterError
from coe.base.period import parse_period
from coe.base.visible_text import echo
from coe.cli.progress import Progress, console_progress
from coe.fleet.learning import Learning
from coe.fleet.processes.program_log import log_to_stderr
from coe.fleet.processes.stop_signal import Life, live_until_signal
from coe.fleet.router_registry import PromotionGuard, Registry
from coe.retrieval.training.pilot_refresh import PilotRefresh, RefreshRequest, export_stores, refresh_pilots
from coe.router.config.composition import load_config
from coe.router.config.feedback import FeedbackConfig
from coe.router.config.retrieval import RetrievalConfig
from coe.training.fit_inputs import RetrainRequest
from coe.training.retrain import run_retrain
from coe.training.retrain_lock import LeaseHeldError, Leases, LockLostError
from coe.training.summary import print_round, retrain_json

PAUSE_SHARE = 0.9
"""Share of a period that must have passed since another replica's round: rounds are never quite even (ours)."""

T = TypeVar("T")
FIRST_S = 1.0
"""Seconds until the first round of `--every`, or until the next look for a router."""

logger = logging.getLogger(__name__)


def retrain_once(request: RetrainRequest, *, as_json: bool) -> None:
    """Run one round; raise LeaseHeldError if another process retrains, else as `one_round` does."""
    with console_progress() as progress:
        one_round(request, Leases(request.database_url), progress, as_json=as_json)


def retrain_when_due(request: RetrainRequest, every: str, *, as_json: bool) -> None:
    """Run one round, unless another process retrains now, or did within most of a period. Raise as `one_round` does."""
    pause_s = PAUSE_SHARE * parse_period("--every", every)
    try:
        with console_progress() as progress:
            one_round(request, Leases(request.database_url), progress, as_json=as_json, pause_s=pause_s)
    except LeaseHeldError as busy:
        echo(f"{busy}, so this round is left out", to_stderr=True)


def retrain_again_and_again(request: RetrainRequest, every: str, words: Sequence[str]) -> None:
    """Run rounds until SIGTERM or SIGINT, each of them the command `words` in a process of its own. A failed round
    is logged, and the next one tries again."""
    learning = Learning(request.routers, words, parse_period("--every", every), first_s=FIRST_S)

    async def program(life: Life) -> None:
        await learning.start()
        life.is_starting = False
        logger.info("coe retrain every %s; SIGTERM or SIGINT stops it", every)
        await life.stop.wait()
        await learning.aclose()
        logger.info("stopped")

    log_to_stderr("info")
    asyncio.run(live_until_signal(program))


def one_round(
    request: RetrainRequest, leases: Leases, progress: Progress, *, as_json: bool, pause_s: float = 0.0
) -> None:
    """Retrain the chat's router, then the pilot library; one that fails does not prevent the other.

    Raises:
        LeaseHeldError: another process retrains, or has within `pause_s`.
        RouterError: a part failed; it is raised after the other's result was printed.
    """
    config = load_config(request.config)
    with leases.acquire() as lease:
        now, registry = datetime.now(UTC), Registry(request.routers)
        last_s, _ = registry.last_round() or (0.0, "")
        if now.timestamp() - last_s < pause_s:
            raise LeaseHeldError("another process has just retrained")
        chat = attempt(partial(run_retrain, request, now=now, progress=progress, guard=lease.promotion))
        pilots = None
        if config.retrieval is not None:
            section, feedback = config.retrieval, config.feedback
            pilots = attempt(partial(retrain_pilots, request, section, feedback, now, progress, lease.promotion))
    if not isinstance(chat, RouterError) and not request.is_dry_run:
        registry.keep_round(now, retrain_json(chat))
    failed = [result for result in (chat, pilots) if isinstance(result, RouterError)]
    if not isinstance(chat, RouterError) or isinstance(pilots, PilotRefresh):
        print_round(chat, pilots, as_json=as_json)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise RouterError("; ".join(str(error) for error in failed))


def attempt(part: Callable[[], T]) -> T | RouterError:
    """Return the result of a part of a round, or the error that it failed with. Raise LockLostError if another
    process took the lease, so the following parts may not run either."""
    try:
        return part()
    except LockLostError:
        raise
    except RouterError as error:
        return error


def retrain_pilots(
    request: RetrainRequest,
    section: RetrievalConfig,
    feedback: FeedbackConfig,
    now: datetime,
    progress: Progress,
    guard: PromotionGuard,
) -> PilotRefresh | None:
    """Refresh the pilot library of experts.yaml; None if it names none.

    Raises:
        DataError: it cannot be refreshed; the message says why.
    """
    unheard = {key for key, weight in feedback.key_weights.items() if not weight}
    export = partial(export_stores, request.database_url, request.since, unheard)
    root = request.config.resolve().parent
    memory = None if request.cache is None else request.cache / "stores"
    refresh = RefreshRequest(section, root, export, is_dry_run=request.is_dry_run, memory=memory)
    try:
        return refresh_pilots(refresh, now=now, progress=progress, guard=guard)
    except RouterError as error:
        raise DataError(f"the pilot library stays as it is: {error}") from error

"""What `coe retrain` does: one round, or one every period."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console

from router.errors import RouterError
from training.progress import Progress, console_progress
from training.retrain_run import RetrainRequest, run_retrain
from training.schedule import parse_period, repeat, stop_on_signal, stoppable
from training.summary import print_retrain
from training.turns import LocalTurns, NoTurnError, SharedTurns

PAUSE_SHARE = 0.9
"""Share of a period that must have passed since another replica's turn: rounds are never quite even (ours)."""

Turns = LocalTurns | SharedTurns


def turns_of(request: RetrainRequest, redis_url: str | None, min_pause_s: float = 0.0) -> Turns:
    """Turns across replicas where there is a Redis, on this host otherwise."""
    if redis_url is None:
        return LocalTurns(request.routers)
    return SharedTurns(request.routers, redis_url, min_pause_s)


def retrain_once(request: RetrainRequest, redis_url: str | None, *, as_json: bool) -> None:
    """Raises NoTurnError when somebody else is at it, and as `run_retrain` does."""
    with console_progress(is_quiet=as_json) as progress:
        one_round(request, turns_of(request, redis_url), progress, as_json=as_json)


def one_round(request: RetrainRequest, turns: Turns, progress: Progress, *, as_json: bool) -> None:
    with turns.take() as turn:
        result = run_retrain(request, now=datetime.now(UTC), progress=progress, guard=turn.promotion)
    print_retrain(result, as_json=as_json)


def retrain_again_and_again(request: RetrainRequest, redis_url: str | None, every: str, *, as_json: bool) -> None:
    """Rounds until a signal. A round that fails is reported, and the next one tries again."""
    period_s = parse_period(every)
    turns = turns_of(request, redis_url, PAUSE_SHARE * period_s)
    console = Console(stderr=True)

    def say(message: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        console.print(f"{stamp} retrain: {message}", markup=False, highlight=False, soft_wrap=True)

    with stop_on_signal() as stop:

        def once() -> None:
            try:
                with console_progress(is_quiet=as_json) as progress:
                    one_round(request, turns, stoppable(progress, stop), as_json=as_json)
            except NoTurnError as busy:
                say(f"{busy}; next look in {every}")
            except RouterError as error:
                say(f"{error}; next try in {every}")

        say(f"every {every}; SIGTERM or SIGINT stops it")
        repeat(once, period_s, stop)
        say("stopped")

"""Rounds of `coe retrain`: one, or one every period."""

from __future__ import annotations

import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

from base.errors import ConfigError, DataError, RouterError
from base.progress import Progress, console_progress
from base.terminal import Terminal
from fleet.router_registry import PromotionGuard, Registry
from retrieval.training.pilot_refresh import PilotRefresh, RefreshRequest, export_stores, refresh_pilots
from router.config import load_config
from router.feedback_config import FeedbackConfig
from router.retrieval_config import RetrievalConfig
from training.retrain import run_retrain
from training.retrain_inputs import RetrainRequest
from training.retrain_lock import LocalTurns, LockLostError, NoTurnError, SharedTurns
from training.summary import print_round, retrain_json

PAUSE_SHARE = 0.9
"""Share of a period that must have passed since another replica's turn: rounds are never quite even (ours)."""

Turns = LocalTurns | SharedTurns
T = TypeVar("T")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_PERIOD_S = 365 * UNITS["d"]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def turns_of(request: RetrainRequest, redis_url: str | None, min_pause_s: float = 0.0) -> Turns:
    """Turns across replicas where there is a Redis, on this host otherwise."""
    if redis_url is None:
        return LocalTurns(request.routers)
    return SharedTurns(request.routers, redis_url, min_pause_s)


def retrain_once(request: RetrainRequest, redis_url: str | None, *, as_json: bool) -> None:
    """Raises NoTurnError when another process retrains, and as `one_round` does."""
    with console_progress() as progress:
        one_round(request, turns_of(request, redis_url), progress, as_json=as_json)


def one_round(request: RetrainRequest, turns: Turns, progress: Progress, *, as_json: bool) -> None:
    """The chat's router, then the pilot library; one that fails does not keep the other from its turn.

    Raises:
        RouterError: what failed, after the other's result was printed.
    """
    config = load_config(request.config)
    with turns.take() as turn:
        now = datetime.now(UTC)
        chat = attempt(partial(run_retrain, request, now=now, progress=progress, guard=turn.promotion))
        pilots = None
        if config.retrieval is not None:
            section, feedback = config.retrieval, config.feedback
            pilots = attempt(partial(retrain_pilots, request, section, feedback, now, progress, turn.promotion))
    if not isinstance(chat, RouterError) and not request.is_dry_run:
        Registry(request.routers).keep_round(now, retrain_json(chat))
    failed = [result for result in (chat, pilots) if isinstance(result, RouterError)]
    if not isinstance(chat, RouterError) or isinstance(pilots, PilotRefresh):
        print_round(chat, pilots, as_json=as_json)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise RouterError("; ".join(str(error) for error in failed))


def attempt(part: Callable[[], T]) -> T | RouterError:
    """Result of a part of a round, or the error that it failed with. Raises LockLostError: the turn is over for what
    follows, too."""
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
    """Refreshes the pilot library of experts.yaml; None where it names none.

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


def unforeseen(error: Exception) -> str:
    """Describes an unforeseen error: its type and place. Its own text may hold what users wrote, so it is left out."""
    *_, place = traceback.extract_tb(error.__traceback__)
    return f"unforeseen {type(error).__name__} at {Path(place.filename).name}, line {place.lineno}"


def retrain_again_and_again(request: RetrainRequest, redis_url: str | None, every: str, *, as_json: bool) -> None:
    """Rounds until a signal. A round that fails is reported, and the next one tries again."""
    period_s = parse_period(every)
    turns = turns_of(request, redis_url, PAUSE_SHARE * period_s)
    console = Terminal(stderr=True)

    def say(message: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        console.print(f"{stamp} retrain: {message}", soft_wrap=True)

    with stop_on_signal() as stop:

        def once() -> None:
            try:
                with console_progress() as progress:
                    one_round(request, turns, stoppable(progress, stop), as_json=as_json)
            except NoTurnError as busy:
                say(f"{busy}; next look in {every}")
            except StoppedError:
                raise
            except (RouterError, OSError) as error:  # a full disk, say, which may have room by then
                say(f"{error}; next try in {every}")
            except Exception as error:  # noqa: BLE001 - whatever it is, tomorrow's round may not meet it
                say(f"{unforeseen(error)}; next try in {every}")

        say(f"every {every}; SIGTERM or SIGINT stops it")
        repeat(once, period_s, stop)
        say("stopped")


class StoppedError(Exception):
    """A signal asked to stop in the middle of a round; nothing was promoted by it."""


def parse_period(value: str) -> float:
    """Seconds of `90s`, `30m`, `1h`, `1.5h` or `1d`. Raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value.strip())
    period_s = 0.0 if found is None else float(found[1]) * UNITS[found[2]]
    if not 0 < period_s <= MAX_PERIOD_S:
        raise ConfigError(
            f"--every: '{value}' is not a period; allowed: a number above 0 with s, m, h or d, such as 1h, up to 365d"
        )
    return period_s


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets, instead of ending the process; a second signal ends it as usual."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stoppable(progress: Progress, stop: threading.Event) -> Progress:
    """The same progress, which ends the round by StoppedError once `stop` is set: between two steps, never in one."""

    def told(message: str) -> None:
        if stop.is_set():
            raise StoppedError
        progress(message)

    return told


def repeat(once: Callable[[], None], period_s: float, stop: threading.Event) -> None:
    """Runs a round at once and then one a period after the last one ended, until `stop`."""
    while not stop.is_set():
        try:
            once()
        except StoppedError:
            return
        stop.wait(period_s)

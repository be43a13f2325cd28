"""Notes of `coe train` on its new router, compared with the one that was live."""

from __future__ import annotations

import math

import numpy as np

from coe.base.errors import ArtifactError, ConfigError, RouterError
from coe.fleet.router_registry import Registry
from coe.router.build import evidence_of
from coe.router.config.composition import CoeConfig, load_config
from coe.router.live_pointer import LivePointer
from coe.router.model_files.artifact import RouterArtifact, load_artifact, require_array, require_finite
from coe.router.prices.cost import cost
from coe.router.prices.usage import Usage
from coe.router.reading.uncertainty import least_alpha, risk_threshold
from coe.training.calibrate import RECOGNISED
from coe.training.expert_map import ASSUMED_OUTPUT, ASSUMED_PROMPT
from coe.training.fit_inputs import TrainRequest
from coe.training.published_scores import read_sources


def notes_on_training(
    registry: Registry,
    made: RouterArtifact,
    request: TrainRequest,
) -> tuple[str, ...]:
    """Return sentences about a new router that is not live yet: that nothing changes, and which experts of the live
    map it lacks. Return none about a first router, or if the live one cannot be read."""
    pointer = readable_pointer(registry)
    if pointer is None:
        return ()
    if pointer.version == made.manifest.version:
        trial = "" if pointer.trial is None else f", and the trial of {pointer.trial.version} continues"
        return (f"router {pointer.version} is live already: nothing changed{trial}",)
    config, notes = load_config(request.config), []
    try:
        live = load_artifact(registry.folder(pointer.version))
    except RouterError:
        return ()
    gone = [name for name in live.manifest.experts if name in config.experts and name not in made.manifest.experts]
    if gone:
        notes.append(
            f"no longer on the map, because no table in {request.outcomes} grades them: {', '.join(gone)}; "
            "`coe experts probe NAME` or `coe eval collect` measures them"
        )
    return tuple(notes)


def notes_on_new_categories(made: RouterArtifact) -> tuple[str, ...]:
    """Return doubts about each category of few examples: how surely it is recognised, and whether it has grades."""
    graded = evidence_of(made).count.sum(axis=1)
    notes = []
    for row, name in enumerate(made.manifest.categories):
        found = made.manifest.metrics.get(f"{RECOGNISED}{name}")
        if found is None or found.interval is None:
            continue
        guess = (
            ""
            if graded[row]
            else "; no answer is graded there, so its serving expert is a guess until feedback arrives"
        )
        notes.append(
            f"{name} is new: {round(found.value * (found.n or 0))} of its {found.n} queries were served as it when "
            f"left out ({found.interval.low:.0%} to {found.interval.high:.0%}){guess}"
        )
    return tuple(notes)


def notes_without_grades(made: RouterArtifact, config: CoeConfig) -> tuple[str, ...]:
    """Describe the experts' expected quality and cost if published scores chose, because nobody was graded."""
    evidence, experts = evidence_of(made), made.manifest.experts
    if evidence.count.any():
        return ()
    unknown = [name for name in config.experts if name not in experts]
    usage = Usage(prompt_tokens=round(ASSUMED_PROMPT), completion_tokens=round(ASSUMED_OUTPUT))
    expected = [
        f"{name} {evidence.quality[-1, column]:.2f} at {cost(usage, config.experts[name].chat_price):.5f} USD"
        for column, name in enumerate(experts)
    ]
    published = ", ".join(entry.source for entry in read_sources())
    return (
        f"no expert is graded yet, so published scores make the map ({published}): expected of a benchmark question "
        f"of {ASSUMED_PROMPT:.0f} tokens and an answer of {ASSUMED_OUTPUT:.0f}: {', '.join(expected)}. Latency is "
        f"unknown, so a limit of latency_ms excludes no expert. `coe eval collect` grades the experts"
        + (f". Without published scores, and not on the map: {', '.join(unknown)}" if unknown else ""),
    )


def require_sure(made: RouterArtifact, config: CoeConfig) -> None:
    """Refuse to make a router live that is never sure of a category: it would send everything to `general`.

    Raises:
        ConfigError: the router is never sure; the message says what to change.
    """
    state = made.part("uncertainty")
    scores = require_finite(state, "held_out_scores", (None,))
    correct = np.asarray(require_array(state, "held_out_correct", scores.shape), dtype=bool)
    alpha = config.router.alpha
    if np.isfinite(risk_threshold(scores, correct, alpha)):
        return
    least, version = least_alpha(scores, correct), made.manifest.version
    higher = f"raise router.alpha to {math.ceil(least * 1000) / 1000:g} or more, " if least < 1 else ""
    raise ConfigError(
        f"router {version} is never sure of a category, so everything would go to general: with encoder "
        f"{made.manifest.encoder.kind}, {correct.mean():.0%} of {len(correct)} held-out queries are classified "
        f"right, too few for router.alpha={alpha:g}. It was not made live: {higher}choose an encoder that separates "
        f"the categories (experts.yaml as shipped has one), or label more queries. `coe router {version} --promote` "
        "makes it live all the same"
    )


def readable_pointer(registry: Registry) -> LivePointer | None:
    """Return the live pointer; None also if it is damaged, which the next promotion repairs."""
    try:
        return registry.live()
    except ArtifactError:
        return None

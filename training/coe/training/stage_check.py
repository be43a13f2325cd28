"""Stage 1 fitted anew, compared with the live one. Shapes: n held-out labelled queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from coe.router.build import configured_router
from coe.router.model_files.artifact import RouterArtifact, made_artifact
from coe.router.pipeline import Router
from coe.router.types import Metric, Query, QueryBatch
from coe.training.category_mix import MIX_MOVED
from coe.training.evidence import Evidence
from coe.training.fit import fit_artifact, prepare
from coe.training.fit_inputs import RetrainInputs, fit_request
from coe.training.resampling import paired_means
from coe.training.stage_one import embed
from coe.training.types import split_of

PARTS = ("asks.", "classifier.", "part_classifier.", "uncertainty.", "mix.")
OF_STAGE = ("encoder", "classifier", "temperature", "data_fingerprints", "metrics")

MIN_DIFFERENCE = 0.01
"""Share of the labelled queries that a new stage 1 must decide differently to be considered (ours)."""


@dataclass(frozen=True)
class StageCheck:
    """Category accuracy of both on held-out labelled queries, weighted as they are asked, and the share decided
    differently (`changed_share`). `mix` is how far the traffic's mix is from the labelled one, if it was measured."""

    live: Metric
    candidate: Metric
    difference: Metric
    changed_share: float
    mix: Metric | None
    is_mix_followed: bool

    def passes(self, margin: float) -> bool:
        """Return whether it decides enough queries differently, is no worse, and surely not by more than the margin."""
        low = self.difference.interval.low if self.difference.interval else -1.0
        return self.changed_share >= MIN_DIFFERENCE and self.difference.value >= 0 and low >= -margin


def new_stage(
    inputs: RetrainInputs, live: Router, made: RouterArtifact, evidence: Evidence
) -> tuple[StageCheck | None, RouterArtifact | None]:
    """Fit stage 1 on the present labelled queries and the traffic's mix; the artifact is None unless it passes.
    Return neither if experts.yaml has other categories than the live router: `coe train` learns those."""
    if inputs.config.learned_categories != made.manifest.categories:
        return None, None
    fitted = fit_stage(inputs, evidence)
    inputs.progress("comparing stage 1 with the live router's")
    check = compare_stages(
        inputs, live, configured_router(inputs.config, with_stage(made, fitted), live.encoder), fitted
    )
    return check, fitted if check.passes(inputs.request.terms.margin) else None


def fit_stage(inputs: RetrainInputs, evidence: Evidence) -> RouterArtifact:
    """Fit a router of which only stage 1 is used."""
    plain = fit_request(inputs.config, evidence.outcomes, inputs.queries, about_material=inputs.about_material)
    wanted = replace(plain, outcomes=None, evidence=evidence.matrix, asked=inputs.asked())
    prepared = prepare(wanted, inputs.encoder, inputs.queries, inputs.rng, inputs.progress)
    return fit_artifact(wanted, inputs.encoder, prepared, inputs.now)


def with_stage(made: RouterArtifact, fitted: RouterArtifact) -> RouterArtifact:
    """Return a router with another one's stage 1."""
    manifest = made.manifest.model_dump(exclude={"version", "weights_sha256"})
    manifest |= {name: getattr(fitted.manifest, name) for name in OF_STAGE}
    kept = {name: array for name, array in made.arrays.items() if not name.startswith(PARTS)}
    stage = {name: array for name, array in fitted.arrays.items() if name.startswith(PARTS)}
    return made_artifact(manifest, kept | stage)


def compare_stages(inputs: RetrainInputs, live: Router, candidate: Router, fitted: RouterArtifact) -> StageCheck:
    """Compare both on the held-out labelled queries. If the candidate follows the traffic's mix, queries are
    weighted by how often their category is asked."""
    queries = [query for query in inputs.queries if split_of(query.text) == "test"]
    batch = QueryBatch(
        tuple(Query(str(i), query.text) for i, query in enumerate(queries)),
        embed(inputs.encoder, [query.text for query in queries], inputs.progress),
    )
    labels = np.array([query.category for query in queries])
    decided = [
        np.array([each.category for each in router.decide_batch(batch, rng=np.random.default_rng(0))])
        for router in (live, candidate)
    ]
    ratios = {} if candidate.mix is None else dict(zip(candidate.categories, candidate.mix.tolist(), strict=False))
    weight = np.array([ratios.get(query.category, 1.0) for query in queries])
    was_right, is_right = ((own == labels).astype(np.float64) for own in decided)
    one, other, difference = paired_means(was_right, is_right, weight, np.arange(len(queries)), inputs.rng)
    otherwise = float(np.average(decided[0] != decided[1], weights=weight))
    mix: Mapping[str, Metric] = fitted.manifest.metrics
    return StageCheck(one, other, difference, otherwise, mix.get(MIX_MOVED), candidate.mix is not None)

"""A small pilot library: two domains in opposite corners, each with its expert."""

from __future__ import annotations

import numpy as np

from coe.retrieval.routing.pilot_library import PilotLibrary, Pilots, RoutingSettings, make_library
from coe.retrieval.types import Arm

LAW, MEDICINE = 0, 1
ARMS = (
    Arm(members=("base",), weights=(1.0,)),
    Arm(members=("law",), weights=(1.0,)),
    Arm(members=("medicine",), weights=(1.0,)),
    Arm(members=("law", "bm25"), weights=(0.5, 0.5)),
)
FINGERPRINTS = {"base": "b" * 32, "law": "l" * 32, "medicine": "m" * 32, "bm25": "w" * 32}


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def corner(axis: int, count: int, seed: int = 0, dim: int = 6) -> np.ndarray:
    """(count, dim) unit rows near one axis."""
    rng = np.random.default_rng((seed, axis))
    return unit(np.eye(dim)[axis] + 0.03 * rng.normal(size=(count, dim)))


def small_library(settings: RoutingSettings | None = None, per_domain: int = 8, located_in: int = LAW) -> PilotLibrary:
    """On law the law expert has 0.9 against 0.5 of base, and 0.95 with BM25; on medicine the medicine expert has 0.8
    against 0.5; elsewhere experts lose 0.1."""
    law = np.tile([0.5, 0.9, 0.4, 0.95], (per_domain, 1))
    medicine = np.tile([0.5, 0.4, 0.8, 0.45], (per_domain, 1))
    scores = np.concatenate([law, medicine]).astype(np.float32)
    pilots = Pilots(
        embeddings=np.concatenate([corner(LAW, per_domain), corner(MEDICINE, per_domain)]),
        scores=scores,
        measured=np.ones(scores.shape, dtype=bool),
        data_set=np.repeat([LAW, MEDICINE], per_domain),
        keys=np.arange(2 * per_domain),
        located=corner(LAW, 3, seed=9),
        located_in=np.full(3, located_in),
    )
    made_at = "2026-01-01T00:00:00+00:00"
    return make_library(pilots, ARMS, ("law", "medicine"), FINGERPRINTS, created_at=made_at, settings=settings)

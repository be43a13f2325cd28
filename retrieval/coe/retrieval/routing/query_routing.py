"""Routing of queries to experts: base encodes each query for the choice, another chosen expert encodes it again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from coe.base.errors import RequestError, allowed_values, shorten
from coe.retrieval.routing.pilot_router import RetrievalRouter
from coe.retrieval.types import BASE, DenseExpert, RetrievalDecision, RetrievalExpert, RetrievalReason, single
from coe.router.section import AUTO
from coe.router.types import FloatArray


@dataclass(frozen=True)
class RoutedQueries:
    """Decisions on n queries.

    `base` (n, d) is None if no routing took place. `routing_ms` is the time of the choice, without the encoding by
    base, which an index of base's documents needs anyway.
    """

    texts: tuple[str, ...]
    decisions: tuple[RetrievalDecision, ...]
    base: FloatArray | None = field(default=None, repr=False)
    routing_ms: float = 0.0

    @staticmethod
    def joined(parts: Sequence[RoutedQueries]) -> RoutedQueries:
        """Join the parts of one request; either all name their expert or none does."""
        bases = [part.base for part in parts if part.base is not None]
        return RoutedQueries(
            tuple(text for part in parts for text in part.texts),
            tuple(decision for part in parts for decision in part.decisions),
            np.concatenate(bases) if bases else None,
            sum(part.routing_ms for part in parts),
        )


class Choices(NamedTuple):
    """The two choices of one pilot library.

    A search chooses among all experts. Vectors for a client come from experts that share base's documents, because
    vectors of different spaces must not be mixed.
    """

    searching: RetrievalRouter
    vectors: RetrievalRouter

    @property
    def version(self) -> str:
        """The version of the library; `none` without one."""
        return self.searching.version


@dataclass
class QueryRouting:
    """The experts and the choices among them, which are replaced together with the pilot library."""

    experts: Mapping[str, RetrievalExpert]
    choices: Choices

    @property
    def base(self) -> DenseExpert:
        base = self.experts[BASE]
        assert isinstance(base, DenseExpert)
        return base

    def expert(self, name: str) -> RetrievalExpert:
        """Return an expert; raise RequestError 404, with the known names, for an unknown one."""
        if name not in self.experts:
            known = (AUTO, *self.experts)
            raise RequestError(
                f"there is no retrieval expert {shorten(name)}{allowed_values(name[:80], known)}",
                status=404,
                code="model_not_found",
                param="model",
            )
        return self.experts[name]

    def dense_expert(self, name: str) -> DenseExpert:
        """Return a dense expert; raise RequestError as `expert` does, or 400 for an expert without vectors."""
        expert = self.expert(name)
        if not isinstance(expert, DenseExpert):
            dense = [each for each, entry in self.experts.items() if isinstance(entry, DenseExpert)]
            raise RequestError(
                f"retrieval expert '{name}' searches by words and has no vectors; allowed: {AUTO}, {', '.join(dense)}",
                code="invalid_value",
                param="model",
            )
        return expert

    def route(self, texts: Sequence[str], model: str, *, for_vectors: bool = False) -> RoutedQueries:
        """Decide n queries; `model` is `auto` or an expert's name, else RequestError 404."""
        if model != AUTO:
            self.expert(model)
            return RoutedQueries(tuple(texts), (single(model, RetrievalReason.EXPLICIT),) * len(texts), None)
        base = self.base.encode_queries(texts)
        choices = self.choices
        router = choices.vectors if for_vectors else choices.searching
        began_s = time.perf_counter()
        decisions = tuple(router.choose(base))
        return RoutedQueries(tuple(texts), decisions, base, (time.perf_counter() - began_s) * 1e3)

    def vectors(self, routed: RoutedQueries, names: Sequence[str]) -> list[FloatArray]:
        """Return each query's vector (d,) by the dense expert of that name, in one batch each; base's are reused."""
        found: list[FloatArray] = [np.zeros(0, dtype=np.float32)] * len(names)
        groups: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            if name == BASE and routed.base is not None:
                found[row] = routed.base[row]
            else:
                groups.setdefault(name, []).append(row)
        for name, rows in groups.items():
            expert = self.experts[name]
            assert isinstance(expert, DenseExpert), name
            vectors = expert.encode_queries([routed.texts[row] for row in rows])
            for row, vector in zip(rows, vectors, strict=True):
                found[row] = vector
        return found


def why(decision: RetrievalDecision) -> str:
    """Describe the reason of a decision."""
    gain = max(decision.scores.values(), default=None)  # the chosen one's: it is the highest
    names = " and ".join(decision.members)
    match decision.reason:
        case RetrievalReason.EXPLICIT:
            return f"the client named {names}"
        case RetrievalReason.RERANKER:
            return "experts.yaml has a reranker, which reads query and document together"
        case RetrievalReason.ONLY:
            return f"{names} is the only expert that can be chosen here"
        case RetrievalReason.PLAIN:
            return f"no expert is predicted to beat {names} on this query"
        case RetrievalReason.UNPREPARED:
            return f"no labelled query is near, so {names} searched"
        case RetrievalReason.PILOTS:
            predicted = "" if gain is None else f" ({gain:+.3f} nDCG@10 predicted)"
            fused = "" if decision.learned_on is None else f", fused as the queries of {decision.learned_on} taught"
            return f"{names} did best on labelled queries nearby{predicted}{fused}"

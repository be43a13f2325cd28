"""Some answers of the log with what was asked: their vectors, and how likely each expert was to answer, by a decision
made again where the record names only the best of many.

Vectors come from the log where it has those of this encoder, also when it keeps no text; other texts are encoded, as
many as `MAX_ENCODED`. Shapes: n answers, d dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from coe.base.errors import NoEligibleExpertError, RouterError
from coe.cli.progress import Progress
from coe.decision_log.decision_record import DecisionRecord, read_record
from coe.decision_log.read import read_rows
from coe.decision_log.replayed import NotReplayableError, decide_again
from coe.decision_log.sql_engine import open_log
from coe.fleet.router_registry import Registry
from coe.router.brief_decision import brief
from coe.router.build import load_router
from coe.router.config import CoeConfig
from coe.router.features import from_bytes
from coe.router.pipeline import Router
from coe.router.protocols import Encoder
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray, Query, QueryBatch, RoutingDecision
from coe.training.log_table import LogTable

ENCODE_ROWS = 64
LOTS = 256**7
MAX_ENCODED = 4000
"""Texts encoded in one run: at some 25 ms each on one core, less than two minutes. A gateway logs the vectors, so only
old rows and changed encoders come to this (ours)."""


@dataclass(frozen=True)
class AskedAnswers:
    """Answers of `log` (n) with the text (empty where none was kept), the vector (n, d) in half precision, the policy,
    the experts that were ruled out, and with which probability the router chose each expert that it knew."""

    log: LogTable
    texts: tuple[str, ...]
    embeddings: NDArray[np.float16]
    policies: tuple[str, ...]
    excluded: tuple[tuple[str, ...], ...]
    chances: tuple[Mapping[str, float], ...]

    def __len__(self) -> int:
        return len(self.log)

    def rows(self, keep: IntArray) -> AskedAnswers:
        """Some of the answers."""
        of_row = ("texts", "policies", "excluded", "chances")
        kept = {name: tuple(getattr(self, name)[row] for row in keep) for name in of_row}
        return replace(self, log=self.log.rows(keep), embeddings=self.embeddings[keep], **kept)

    def vectors(self, rows: IntArray) -> FloatArray:
        """(len(rows), d) in single precision."""
        return self.embeddings[rows].astype(np.float32)


def sample_rows(log: LogTable, rows: IntArray, most: int) -> IntArray:
    """At most so many of the rows, every one as likely as another, and the same ones in the next run: ids are drawn
    at random when a decision is made, so a hash of them is a fair lot."""
    if len(rows) <= most:
        return rows
    lots = np.array([hash_lot(name) for name in log.ids[rows]])
    return np.sort(rows[np.argsort(lots, kind="stable")[:most]])


def drawn_rows(log: LogTable, chance: Float64Array) -> IntArray:
    """Rows that are drawn, each with its chance (n,), and the same ones in the next run."""
    certain, possible = np.flatnonzero(chance >= 1), np.flatnonzero((chance > 0) & (chance < 1))
    lots = np.array([hash_lot(b"drawn" + name) / LOTS for name in log.ids[possible]])
    return np.sort(np.concatenate([certain, possible[lots < chance[possible]]]))


def hash_lot(name: bytes) -> int:
    """A number below `LOTS` that follows from an id alone."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big")


def as_logged(record: DecisionRecord, _: FloatArray) -> RoutingDecision | None:
    return record.decision


def fetch_answers(
    database_url: str,
    log: LogTable,
    encoder: Encoder,
    progress: Progress,
    *,
    whole: Callable[[DecisionRecord, FloatArray], RoutingDecision | None] = as_logged,
    max_encoded: int = MAX_ENCODED,
) -> AskedAnswers:
    """The answers of `log` that have a vector, or a text that may be encoded.

    Args:
        whole: the decision with all experts that were weighed, from a record and its vector (1, d); an answer without
            one is left out.

    Raises: what `open_log` does.
    """
    vectors = np.zeros((len(log), encoder.dim), dtype=np.float16)
    kept: dict[int, DecisionRecord] = {}
    pending: list[int] = []
    with open_log(database_url) as connection:
        for row, found in enumerate(fetched_answers(connection, log.ids, encoder.fingerprint)):
            if found is None or found[0].decision is None:
                continue  # erased since the first pass
            record, vector = found
            if vector is not None and len(vector) == encoder.dim:
                vectors[row] = vector
            elif record.text and len(pending) < max_encoded:
                pending.append(row)
            else:
                continue
            kept[row] = record
    for start in range(0, len(pending), ENCODE_ROWS):
        part = pending[start : start + ENCODE_ROWS]
        vectors[part] = encoder.encode([kept[row].text or "" for row in part])
        progress(f"encoded {start + len(part)} of {len(pending)} logged queries")
    made = {row: whole(record, vectors[row : row + 1].astype(np.float32)) for row, record in kept.items()}
    decisions = {row: decision for row, decision in made.items() if decision is not None}
    return asked_answers(log, kept, decisions, vectors)


def asked_answers(
    log: LogTable,
    records: Mapping[int, DecisionRecord],
    made: Mapping[int, RoutingDecision],
    vectors: NDArray[np.float16],
) -> AskedAnswers:
    """The rows of `log` (and of `records` and `vectors`) that have a decision."""
    index, decisions = np.array(list(made), dtype=np.int64), tuple(made.values())
    return AskedAnswers(
        log=log.rows(index),
        texts=tuple(records[row].text or "" for row in made),
        embeddings=vectors[index],
        policies=tuple(decision.policy for decision in decisions),
        excluded=tuple(tuple(sorted(decision.excluded)) for decision in decisions),
        chances=tuple(chances_of(decision) for decision in decisions),
    )


def chances_of(decision: RoutingDecision) -> dict[str, float]:
    """Probabilities of the experts that the router knew; 0 of one that was ruled out or outside the policy."""
    known = (*decision.eligible, *decision.excluded, *decision.outside_policy)
    return dict.fromkeys(known, 0.0) | dict(zip(decision.eligible, decision.eligible_probs, strict=False))


def fetched_answers(
    connection: Connection, ids: NDArray[np.bytes_], fingerprint: str
) -> Iterator[tuple[DecisionRecord, FloatArray | None] | None]:
    """Records by id with their vectors of this encoder, in the order asked for; None for one that was removed."""
    for row in read_rows(connection, [bytes(name).decode() for name in ids]):
        if row is None:
            yield None
            continue
        data = row.embedding if row.encoder_fingerprint == fingerprint else None
        yield read_record(row.record), from_bytes(data) if data else None


BATCH_ROWS = 2048


@dataclass(frozen=True)
class LoggedChoices:
    """Choices of a router on n logged queries: the `chosen` experts (n,), and `serves` (n,), False where the policy let
    none serve it. Exploration is left out: its budget is the same whatever the router chooses."""

    chosen: IntArray
    serves: BoolArray

    def match(self, logged: IntArray) -> Float64Array:
        """(n,) probabilities, 0 or 1, of the logged experts."""
        return np.asarray((self.chosen == logged) & self.serves, dtype=np.float64)

    def planned(self, model: Float64Array) -> Float64Array:
        """(n,) of values (n, m) those of the chosen experts; nothing is earned where none serves."""
        return np.asarray(model[np.arange(len(model)), self.chosen] * self.serves, dtype=np.float64)


def batch_of(texts: Sequence[str], embeddings: FloatArray) -> QueryBatch:
    """Texts without their length: the experts for which a logged request was too long then are in `excluded`, and a
    grade says what an expert made of a prompt."""
    return QueryBatch(tuple(Query(id=str(i), text=text) for i, text in enumerate(texts)), embeddings)


def choices_on(router: Router, asked: AskedAnswers, experts: tuple[str, ...]) -> LoggedChoices:
    """Choices of a router on logged queries, under the policy and with the experts that each had then."""
    number = {name: i for i, name in enumerate(experts)}
    chosen, serves = np.zeros(len(asked), dtype=np.int64), np.zeros(len(asked), dtype=bool)
    for rows, batch, policy, excluded in logged_batches(asked):
        alive = set(router.experts) - set(excluded)
        for row, decision in zip(rows, decisions_of(router, batch, policy, alive), strict=True):
            chosen[row] = number[decision.ranking[0]]
            serves[row] = decision.ranking[0] in alive
    return LoggedChoices(chosen, serves)


def logged_batches(asked: AskedAnswers) -> Iterator[tuple[list[int], QueryBatch, str, tuple[str, ...]]]:
    """Queries that were decided by one policy with the same experts ruled out: rows, queries, and both of these."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for row, key in enumerate(zip(asked.policies, asked.excluded, strict=True)):
        groups.setdefault(key, []).append(row)
    for (policy, excluded), rows in groups.items():
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            yield part, batch_of([asked.texts[row] for row in part], asked.vectors(np.array(part))), policy, excluded


def decisions_of(router: Router, batch: QueryBatch, policy: str, alive: set[str]) -> Sequence[RoutingDecision]:
    """Decisions with those experts; of a query that the policy lets none of them serve, the one with everybody."""
    try:
        return router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy, alive=alive)
    except NoEligibleExpertError:
        if len(batch.queries) == 1:
            return router.decide_batch(batch, rng=np.random.default_rng(0), policy=policy)
    alone = (QueryBatch((query,), batch.embeddings[[i]]) for i, query in enumerate(batch.queries))
    return [made for one in alone for made in decisions_of(router, one, policy, alive)]


def chance_matrix(asked: AskedAnswers, experts: tuple[str, ...]) -> Float64Array:
    """(n, m) probabilities with which the log's router chose each expert."""
    return np.array([[own.get(name, 0.0) for name in experts] for own in asked.chances]).reshape(-1, len(experts))


NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class WholeDecisions:
    """Makes them from the routers of a data folder; each is loaded once."""

    config: CoeConfig
    routers: Path
    encoder: Encoder
    _loaded: dict[str, Router | None] = field(default_factory=dict)

    def of(self, record: DecisionRecord, embedding: FloatArray) -> RoutingDecision | None:
        """The decision of a record, made again from its embedding (1, d); None where its router is gone.

        Where experts.yaml decides otherwise now, experts that the record does not name get a probability of 0: their
        chance is not known, and an estimate counts what they would do as unsupported.
        """
        logged, inputs = record.decision, record.inputs
        if logged is None or logged.rest is None:
            return logged
        router = self._router(logged.router_version)
        if router is None or inputs is None:
            return None
        try:
            again = decide_again(router, record, embedding)
            if brief(again, (record.served_expert,)).rest == logged.rest:
                return again
        except (NoEligibleExpertError, NotReplayableError):
            pass
        excluded = router.excluded(inputs.facts, [name for name in router.experts if name not in inputs.unreachable])
        others = set(router.experts) - {*excluded, *logged.eligible}
        changes = {"excluded": excluded, "outside_policy": dict.fromkeys(sorted(others), NOT_RECORDED)}
        return logged.model_copy(update=changes)

    def _router(self, version: str) -> Router | None:
        if version not in self._loaded:
            try:
                self._loaded[version] = load_router(self.config, Registry(self.routers).folder(version), self.encoder)
            except RouterError:  # it is gone, or experts.yaml has none of its experts
                self._loaded[version] = None
        return self._loaded[version]

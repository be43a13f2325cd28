"""Bodies of the gateway's own endpoints, as they cross HTTP."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from decision_log.feedback_types import Feedback, FeedbackKind, ImplicitSignal
from decision_log.listing import Spend
from fleet.residency.types import Residency
from router.live_pointer import CanaryTerms
from router.request_body import Body, ColumnText
from router.types import DecisionRecord, Record, RoutingDecision

DEFAULT_VALUES = {FeedbackKind.RETRY: 0.0}
MAX_EDIT_CHARS = 20_000
"""Two texts of this length take some 30 ms to compare; nothing of them is stored."""

YES_OR_NO = frozenset({FeedbackKind.THUMB, FeedbackKind.RETRY, FeedbackKind.TEST, FeedbackKind.TICKET})
DOCUMENT_KINDS = frozenset({FeedbackKind.THUMB, FeedbackKind.SCORE})

EditText = Annotated[str, Field(max_length=MAX_EDIT_CHARS)]


class FeedbackRequest(Body):
    """Feedback of a client on an answer: `value`, or both texts of an edit, of which only the kept share is stored."""

    decision_id: ColumnText = Field(min_length=1, max_length=64, description="from the header x-coe-decision-id")
    kind: FeedbackKind
    value: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="0 is bad, 1 is good; thumb, test and ticket take nothing between; retry is 0"
    )
    document_id: str | None = Field(
        default=None, min_length=1, max_length=128, description="a document that a search or rerank showed"
    )
    original: EditText | None = Field(default=None, description="edit: the answer as it was")
    edited: EditText | None = Field(default=None, description="edit: what a person made of it; never stored")

    @model_validator(mode="after")
    def has_one_value(self) -> Self:
        texts = (self.original, self.edited)
        if self.document_id is not None and self.kind not in DOCUMENT_KINDS:
            raise ValueError(f"kind '{self.kind}' says nothing of a document; allowed with 'document_id': thumb, score")
        if self.kind is not FeedbackKind.EDIT and texts != (None, None):
            raise ValueError(f"'original' and 'edited' belong to kind 'edit', not to '{self.kind}'")
        if texts != (None, None) and (None in texts or self.value is not None):
            raise ValueError("an edit takes 'value', or 'original' and 'edited' together")
        if self.value is None and texts == (None, None) and self.kind not in DEFAULT_VALUES:
            raise ValueError(f"kind '{self.kind}' needs 'value'")
        if self.kind in YES_OR_NO and self.value not in (None, 0.0, 1.0):
            raise ValueError(f"kind '{self.kind}' takes the value 0 or 1")
        if self.kind is FeedbackKind.RETRY and self.value not in (None, 0.0):
            raise ValueError("kind 'retry' takes the value 0: the user wanted another answer")
        return self


class FeedbackAnswer(Record):
    """`status` is `replaced` when the same key had said something else of that kind, `repeated` when the same."""

    decision_id: str
    value: float
    status: Literal["accepted", "replaced", "repeated"]


class RouteAnswer(Record):
    """A decision that was not carried out, and the reason in words."""

    decision: RoutingDecision
    why: str


class ModelCard(Record):
    """One name that `model` may have. `owned_by` says its kind: `coe`, `coe-policy`, `coe-alias` or the engine."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(Record):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


class Health(Record):
    """`missing` says what keeps the gateway from serving, `warnings` which experts are disabled and why, and why the
    configuration in force is not served here."""

    status: Literal["ok", "not_ready"]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    router_version: str | None = None
    experts_alive: tuple[str, ...] = ()


class ExpertView(Record):
    """An expert as it is now. `shares_base_with` counts the experts on the same weights; prices are in USD for a
    million tokens, parameters in billions."""

    name: str
    description: str
    engine: str
    model: str
    is_hosted: bool
    shares_base_with: int
    state: Literal["up", "on trial", "down", "disabled"]
    problem: str | None
    residency: Residency | None = Field(description="of an engine of `coe experts up`: awake, asleep or stopped")
    params_b: float
    active_params_b: float
    context_tokens: int
    price_in_per_m_usd: float
    price_out_per_m_usd: float
    takes: tuple[str, ...]


class ExpertList(Record):
    """Experts in the order of experts.yaml."""

    object: Literal["list"] = "list"
    data: tuple[ExpertView, ...]


class KeySpend(Spend):
    """Spend of a key. `team` is '' where no key was needed."""

    team: str


class SpendList(Record):
    """Spend of keys, with since <= at < until; dearest first."""

    object: Literal["list"] = "list"
    since: float
    until: float | None
    data: tuple[KeySpend, ...]


class TrialRequest(Body):
    """A trial: `canary` are the terms under which the router serves, null lets it decide in the shadow alone."""

    canary: CanaryTerms | None


class ConfigText(Body):
    """A configuration to put in force."""

    experts_yaml: str = Field(min_length=1, description="the text of a whole experts.yaml")


class ConfigPlan(Record):
    """The changes that a configuration would make, one line each."""

    changes: tuple[str, ...]


class ConfigState(Record):
    """The configuration in force. `served` is that of the process that answers, `problem` why it is not `number`. A
    rollback goes back to those in `before`, newest first."""

    number: int
    at: str
    by: str
    before: tuple[int, ...]
    served: int
    problem: str | None


class CategoryProb(Record):
    """A category that stage 1 thought of."""

    category: str
    prob: float


class Signals(Record):
    """The view of stage 1. Above `threshold` the decision falls back to `general`; None: nothing passes it."""

    categories: tuple[CategoryProb, ...]
    uncertainty: float
    threshold: float | None
    is_fallback: bool


class WeighedExpert(Record):
    """One expert as the decision weighed it. `prob` is 0 and `lacks` says why where it could not serve, or the policy
    does not let it. `rank` is its place in the policy's order, from 1.

    Cost and wait are means for a query of this category; a wait of None was never measured.
    """

    expert: str
    prob: float
    predicted_quality: float
    predicted_cost_usd: float
    predicted_wait_ms: float | None
    lacks: str | None = None
    rank: int | None = None
    is_chosen: bool = False
    is_runner_up: bool = False


SHOWN_ONCE = {
    *("eligible", "eligible_probs", "predicted_quality", "excluded", "excluded_quality", "outside_policy", "ranking"),
    *("predicted_cost_usd", "predicted_wait_ms", "category_probs", "uncertainty", "threshold"),
}
"""Fields of a decision that `signals` and `experts` of a receipt show."""


class Receipt(Record):
    """One request: how it ended, what was weighed, and the feedback since.

    `signals` and `experts` are empty where the client named the expert or none was chosen. `implicit` is what clients
    did, which is not feedback.
    """

    record: DecisionRecord
    why: str
    signals: Signals | None = None
    experts: tuple[WeighedExpert, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    implicit: tuple[ImplicitSignal, ...] = ()

    def compact(self) -> dict[str, object]:
        """As JSON values: what `signals` and `experts` show is not in `record.decision` again, and numbers have six
        digits, or three decimals where that is more."""
        shown_once = SHOWN_ONCE if self.signals and self.experts else set()
        values = self.model_dump(mode="json", exclude={"record": {"decision": shown_once}})
        return {name: with_fewer_digits(value) for name, value in values.items()}


def with_fewer_digits(value: object) -> object:
    """A JSON value whose numbers have six digits, or three decimals where that is more; the log keeps them all."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < 1000 else round(value, 3)
    if isinstance(value, dict):
        return {name: with_fewer_digits(part) for name, part in value.items()}
    return [with_fewer_digits(part) for part in value] if isinstance(value, list) else value


def signals_of(decision: RoutingDecision) -> Signals:
    return Signals(
        categories=tuple(CategoryProb(category=name, prob=prob) for name, prob in decision.category_probs.items()),
        uncertainty=decision.uncertainty,
        threshold=decision.threshold,
        is_fallback=decision.is_fallback,
    )


def weighed_experts(decision: RoutingDecision) -> tuple[WeighedExpert, ...]:
    """Every expert of the router, those that could serve first."""
    names = (*decision.eligible, *decision.excluded, *decision.outside_policy)
    lacks, rank = decision.excluded | decision.outside_policy, {e: i for i, e in enumerate(decision.ranking, start=1)}
    probs = dict(zip(decision.eligible, decision.eligible_probs, strict=True))
    qualities = (*decision.predicted_quality, *decision.excluded_quality)
    columns = zip(names, qualities, decision.predicted_cost_usd, decision.predicted_wait_ms, strict=True)
    return tuple(
        WeighedExpert(
            expert=name,
            prob=probs.get(name, 0.0),
            predicted_quality=quality,
            predicted_cost_usd=cost,
            predicted_wait_ms=wait,
            lacks=lacks.get(name),
            rank=rank.get(name),
            is_chosen=name == decision.expert,
            is_runner_up=name == decision.runner_up,
        )
        for name, quality, cost, wait in columns
    )

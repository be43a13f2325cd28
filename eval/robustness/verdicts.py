"""Holds expectations against decisions. Pure but for `decide`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from eval.robustness.cases import Case, build_families, make_cases
from eval.robustness.expectations import Expectation, Expectations
from eval.robustness.flip_records import ExpectationFailure, ExpectationsRecord
from eval.robustness.flips import Decide
from router.types import RoutingDecision


def check_expectations(expectations: Expectations, decide: Decide, *, file: str) -> ExpectationsRecord:
    """Decides every case and what its `perturb` makes of it, in one call, and lists what does not hold."""
    changed = [make_cases(case.text, expectations.seed, build_families(case.perturb)) for case in expectations.cases]
    texts = [case.text for case in expectations.cases] + [case.text for cases in changed for case in cases]
    distinct = list(dict.fromkeys(texts))
    decided = dict(zip(distinct, decide(distinct), strict=True))
    expert_of = {case.name: decided[case.text].expert for case in expectations.cases}
    failures: list[ExpectationFailure] = []
    for i, (case, cases) in enumerate(zip(expectations.cases, changed, strict=True)):
        for variant in (None, *cases):
            failures.extend(faults(f"cases.{i}", case, variant, decided, expert_of))
    return ExpectationsRecord(
        file=file, n_cases=len(expectations.cases), n_decisions=len(distinct), failures=tuple(failures)
    )


def faults(
    place: str,
    case: Expectation,
    variant: Case | None,
    decided: Mapping[str, RoutingDecision],
    expert_of: Mapping[str, str],
) -> Iterator[ExpectationFailure]:
    """Unmet expectations of one case, with its own text or a changed one."""
    text = case.text if variant is None else variant.text
    for key, expected, found in broken(case, decided[text], expert_of):
        yield ExpectationFailure(
            place=f"{place}.{key}",
            name=case.name,
            expected=expected,
            found=found,
            text=text,
            family=None if variant is None else variant.family,
            template=None if variant is None else variant.template,
        )


def broken(
    case: Expectation, decision: RoutingDecision, expert_of: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Key, what was expected and what was found, of every expectation of a case that a decision does not meet."""
    got = f"expert '{decision.expert}' by category '{decision.category}' (confidence {decision.confidence:.2f})"
    if case.expert is not None and decision.expert != case.expert:
        yield "expert", f"expert '{case.expert}'", got
    if case.not_expert is not None and decision.expert == case.not_expert:
        yield "not_expert", f"another expert than '{case.not_expert}'", got
    if case.category is not None and decision.category != case.category:
        likely = "" if decision.category == decision.likely_category else f", most likely '{decision.likely_category}'"
        yield "category", f"category '{case.category}'", f"'{decision.category}'{likely}"
    if case.fallback is not None and decision.is_fallback != case.fallback:
        wanted = "a fallback to general" if case.fallback else "no fallback"
        yield "fallback", wanted, f"category '{decision.category}' (uncertainty {decision.uncertainty:.2f})"
    if case.min_confidence is not None and decision.confidence < case.min_confidence:
        yield "min_confidence", f"confidence of at least {case.min_confidence:g}", f"{decision.confidence:.3f}"
    if case.same_as is not None and decision.expert != expert_of[case.same_as]:
        yield "same_as", f"the expert of '{case.same_as}', '{expert_of[case.same_as]}'", got

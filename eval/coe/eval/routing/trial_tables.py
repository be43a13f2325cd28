"""Tables that `coe eval routing` measures on: fit and test rows, budgets. Shapes: n prompts, m experts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coe.base.errors import ConfigError, DataError, InfeasibleBudgetError, allowed_values
from coe.base.json_text import to_json
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.trial import active_params, mean_costs
from coe.router.config.policy import Budgets
from coe.router.policy.budget_price import SLACK
from coe.router.reading.normalise import normalised_text
from coe.training.datasets.outcomes import complete_rows, read_outcomes
from coe.training.types import SPLITS, OutcomeTable


@dataclass(frozen=True)
class Tables:
    """The fit and test rows with the same experts. `splits` counts the prompts that every expert has a score on,
    `n_incomplete` the others. If `has_one_category`, no category of the fit rows is large enough to learn, so all
    are one."""

    fit: OutcomeTable
    test: OutcomeTable
    splits: Mapping[str, int]
    n_overlap_removed: int
    n_incomplete: int = 0
    has_one_category: bool = False


def parse_budgets(options: Sequence[str]) -> Budgets:
    """Parse budgets from `name=number`; raise ConfigError with the allowed names if a name or number is wrong."""
    values: dict[str, float] = {}
    for option in options:
        name, _, number = option.partition("=")
        if name not in Budgets.model_fields:
            raise ConfigError(f"--budget: unknown budget '{name}'{allowed_values(name, Budgets.model_fields)}")
        try:
            values[name] = float(number)
        except ValueError as error:
            raise ConfigError(f"--budget {name}: '{number}' is not a number; write {name}=31") from error
        if not 0 < values[name] < np.inf:
            raise ConfigError(f"--budget {name}: {number} is not allowed; expected a number of more than 0")
    return Budgets(**values)


def read_tables(request: RoutingRequest) -> Tables:
    """Load fit and test rows. Fit rows whose text is also in the test set are left out.

    Raises:
        DataError: the table cannot be read, as in `read_outcomes`, or no row is left to fit or to test on.
    """
    experts = None if request.experts is None else sorted(request.experts)  # as in the table that they are taken from
    read = read_outcomes(request.outcomes, experts=experts, keep_partial=True)
    table = complete_rows(read, request.outcomes)
    is_test = np.array([name == "test" for name in table.splits], dtype=bool)
    fit, test = table.rows(~is_test), table.rows(is_test)
    tested = {normalised_text(text) for text in test.texts}
    is_new = np.array([normalised_text(text) not in tested for text in fit.texts], dtype=bool)
    fit, n_overlap = fit.rows(is_new), int((~is_new).sum())
    counts = Counter(table.splits)
    splits = {str(name): counts[name] for name in SPLITS}
    for name, part in (("fit", fit), ("test", test)):
        if not part.prompt_ids:
            found = f"prompts per split: {splits}; {n_overlap} have a text that is in the test set too"
            raise DataError(f"{request.outcomes}: no prompt is left to {name} on ({found})")
    is_one = not fit.learned_categories()
    if is_one:
        fit, test = fit.in_one_category(), test.in_one_category()
    return Tables(fit, test, splits, n_overlap, len(read.prompt_ids) - len(table.prompt_ids), is_one)


def require_amounts(table: OutcomeTable, budgets: Budgets) -> None:
    """Refuse budgets that cannot be measured, before anything is fitted.

    Raises:
        DataError: a budget limits an amount that is unknown for some expert.
        InfeasibleBudgetError: a budget is less than every expert needs.
    """
    for name, amounts in (
        ("active_params_b", active_params(table)),
        ("hosted_params_b", active_params(table)),
        ("cost_usd", mean_costs(table)),
        # A map may be faster than every single expert: each may be fast on other categories.
        ("latency_ms", np.where(np.isfinite(table.latency_ms).any(axis=0), 0.0, np.nan)),
    ):
        limit = getattr(budgets, name)
        if limit is None:
            continue
        lacking = [expert for expert, amount in zip(table.experts, amounts, strict=True) if np.isnan(amount)]
        if lacking:
            raise DataError(f"budget {name}: unknown for {', '.join(lacking)}; leave them out with --experts")
        if amounts.min() > limit * (1 + SLACK):
            raise InfeasibleBudgetError(name, limit, float(amounts.min()))


def fingerprint(table: OutcomeTable) -> str:
    """Return the first 16 hex digits of a SHA-256 over ids, texts, labels, experts and scores in order."""
    digest = hashlib.sha256()
    for column in (table.prompt_ids, table.texts, table.categories, table.experts):
        digest.update(to_json([value.encode("utf-8", "backslashreplace").decode() for value in column]))
    digest.update(np.ascontiguousarray(table.scores, dtype="<f4").tobytes())
    return digest.hexdigest()[:16]

"""The findings in words. Scores are printed as percent with one decimal, differences as points (percent)."""

from __future__ import annotations

from eval.report.schema import Arm, Difference, Range, Regret

PART_NAMES = {
    "beyond_categories": "Beyond categories",
    "map": "Map",
    "classifier": "Classifier",
    "serving": "Serving",
}
PART_MEANING = {
    "beyond_categories": "one expert per category is not the best expert for each query",
    "map": "the map, learned on fit data and within any budget, is not the best one for these queries",
    "classifier": "the category was predicted wrongly, or the query fell back to general",
    "serving": "another expert answered than was decided (nothing fails offline, so 0 here)",
}


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%"


def points(difference: float) -> str:
    """A difference of scores with its sign, such as +4.2; a true minus sign."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\u2212")


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def points_range(interval: Range) -> str:
    return f"{points(interval[0])} to {points(interval[1])}"


def dollars(amount: float | None) -> str:
    """USD per query as USD per 1,000 queries, with three significant digits."""
    if amount is None:
        return "unknown"
    return "$0" if amount == 0 else f"${1000 * amount:#.3g}".rstrip(".")


def billions(amount: float | None) -> str:
    return "unknown" if amount is None else f"{amount:.2f}B" if amount < 1 else f"{amount:.1f}B"


def verdict(gain: Difference) -> str:
    """One clause on the best single expert; a gain counts when its interval leaves zero out."""
    if gain.interval[0] > 0:
        return "Routing beats the best single expert"
    if gain.interval[1] < 0:
        return "Routing does worse than the best single expert"
    return "Routing shows no difference from the best single expert"


def headline(
    arms: dict[str, Arm], gain: dict[str, Difference], gap_closed: float | None, n_test: int, n_experts: int
) -> str:
    """What a reader should take away, in two or three sentences."""
    own, single, oracle = arms["coe"], arms["best_single"], arms["query_oracle"]
    sentences = [
        f"{verdict(gain['best_single'])}: on {n_test:,} held-out queries over {n_experts} experts it scores "
        f"{percent(own.mean_score)}, the {lower_first(single.label)} {percent(single.mean_score)}, a difference of "
        f"{points(gain['best_single'].mean)} points (95% interval {points_range(gain['best_single'].interval)})."
    ]
    if gap_closed is not None:
        sentences.append(
            f"That closes {percent(gap_closed, 0)} of the gap to a perfect choice per query "
            f"({percent(oracle.mean_score)})."
        )
    sentences.append(f"Against k-NN it is {points(gain['knn'].mean)} points ({points_range(gain['knn'].interval)}).")
    if "best_mixture" in gain:
        mixed = gain["best_mixture"]
        sentences.append(
            f"Against the best fixed mixture within the budget it is {points(mixed.mean)} points "
            f"({points_range(mixed.interval)})."
        )
    return " ".join(sentences)


def regret_sentence(regret: Regret) -> str:
    """Where the largest part of the remaining distance lies."""
    if regret.total.mean <= 0:
        return "Nothing: every query got an expert that answers it as well as the best one."
    largest = max(regret.parts, key=lambda name: regret.parts[name].mean)
    return (
        f"{100 * regret.total.mean:.1f} points lie between this router and the best expert for every query. The "
        f"largest part, {100 * regret.parts[largest].mean:.1f} points, is \u201c{PART_NAMES[largest].lower()}\u201d: "
        f"{PART_MEANING[largest]}."
    )

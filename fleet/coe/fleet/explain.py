"""A decision in words, for people."""

from __future__ import annotations

from coe.router.deciding_words import ReadFrom
from coe.router.loop import LoopState
from coe.router.types import DecisionReason, Record, RoutingDecision, Stay, StayRule, View

READ_FROM = {
    View.WHOLE: "",
    View.ASK: " by the ask amid its material",
    View.UNCLEAR: ", though no part of it clearly asks,",
    View.TASK: " by the task in its system prompt",
}
TOP_LACKS = 3


class RouteAnswer(Record):
    """A decision that was not carried out, the reason in words, the state of its loop of tools, and what the category
    was read from; None where the client named the expert."""

    decision: RoutingDecision
    why: str
    loop: LoopState | None = None
    read_from: ReadFrom | None = None


def reason_in_words(decision: RoutingDecision, threshold: float | None = None) -> str:
    """One sentence: why this expert. `threshold` is the uncertainty above which queries fall back to `general`."""
    sure = f"'{decision.likely_category}' with confidence {decision.confidence:.2f}"
    seen = f"classified{READ_FROM[decision.view]} as {sure}"
    if decision.is_fallback:
        limit = "" if threshold is None else f" is above {threshold:.2f}"
        seen = f"most likely {sure}, but uncertainty {decision.uncertainty:.2f}{limit}: general"
    pinned = "that category"
    if decision.unknown_language is not None:
        pinned = "its language"
        seen = f"most likely {sure}, but in {decision.unknown_language} letters that no labelled query has"
    sentences = {
        DecisionReason.MAP: (
            f"{seen}; the measured map sends that category to {decision.expert}{passed_over(decision)}"
        ),
        DecisionReason.QUERY: f"{seen}; {decision.expert} is predicted to answer this very query best",
        DecisionReason.PINNED: f"{seen}; experts.yaml pins {pinned} to {decision.expert}",
        DecisionReason.UNCERTAIN: f"{seen}, which asks {decision.expert}{asked_next(decision)}",
        DecisionReason.NEXT_BEST: (
            f"{seen}; the planned expert cannot serve this request{ruled_out(decision)}, {decision.expert} is next in "
            "its order"
        ),
        DecisionReason.EXPLORED: f"{seen}; {decision.expert} was drawn to learn how good it is here",
        DecisionReason.KEPT: f"{seen}; the conversation stays with {decision.expert}{stay_in_words(decision)}",
        DecisionReason.ESCALATED: f"{seen}; {decision.expert} serves{stay_in_words(decision)}",
        DecisionReason.CACHED: f"the answer of {decision.expert} to the same request was kept",
        DecisionReason.UNGRADED: (
            f"no graded expert can serve this request{ruled_out(decision)}; nobody has graded {decision.expert} yet"
        ),
        DecisionReason.EXPLICIT: f"the client named {decision.expert}{ruled_out(decision)}",
    }
    return sentences[decision.reason] + moved_in_words(decision) + asleep_in_words(decision)


def loop_in_words(loop: LoopState | None) -> str:
    """Says where a loop of tools is, as a part of a sentence; empty outside one."""
    if loop is None:
        return ""
    result = "an error" if loop.is_error else "no error"
    repeats = {"call": loop.same_calls, "error": loop.same_errors}
    again = "".join(f", the same {what} {times} times" for what, times in repeats.items() if times > 1)
    work = f"{loop.edits} edits and {loop.tests} failed tests since tests passed" if loop.edits + loop.tests else ""
    about = ", ".join(part for part in (f"phase {loop.phase}", work) if part)
    return f"; step {loop.turns + 1} of a {'sub-agent' if loop.is_subagent else 'loop'}: {result}{again}, {about}"


def ruled_out(decision: RoutingDecision) -> str:
    """Names the experts that cannot serve, with what each lacks; of many the first."""
    lacks = [f"{name} {reason}" for name, reason in decision.excluded.items()]
    return f" ({'; '.join(lacks[:TOP_LACKS])}{'; ...' if lacks[TOP_LACKS:] else ''})" if lacks else ""


def asleep_in_words(decision: RoutingDecision) -> str:
    """Says that a better expert slept, and whether its engine is woken for it."""
    found = decision.asleep
    if found is None:
        return ""
    then = "it is being woken" if found.is_waking else "it is left asleep"
    return f"; the best expert, {found.expert}, was asleep: lost {found.lost:.2f}; {then}"


STAYS = {
    StayRule.UNSURE: "it is unsure what is asked now",
    StayRule.EXPLORED: "it is tried, and a loop that is tried ends with one expert",
    StayRule.STALLED: "its loop repeats itself, but no stronger expert may serve",
    StayRule.UNSETTLED: "its loop is not settled",
    StayRule.SETTLED: "its loop is settled, but the way back would lose more than it saves",
    StayRule.SPENT: "its loops have moved as often as they may",
}
"""Why a conversation stays, where it is not for the price alone."""


def stay_in_words(decision: RoutingDecision) -> str:
    """Says why a conversation stays with its expert, or why its loop was given to the strongest."""
    held = decision.stay
    if held is None:
        return ""
    if not held.kept:
        return f", the strongest that the policy lets serve, because the loop repeats itself with {held.last_expert}"
    if held.rule is StayRule.PRICE:
        return f": another one would gain {held.gain:.3f}, and {priced(held)}"
    return f", because {STAYS[held.rule]}"


def moved_in_words(decision: RoutingDecision) -> str:
    """Says what a conversation gains by another expert than its last one."""
    held = decision.stay
    if held is None or held.kept or held.rule is StayRule.STALLED or held.last_expert == decision.expert:
        return ""
    why = "its loop is settled" if held.rule is StayRule.SETTLED else f"a gain of {held.gain:.3f}, and {priced(held)}"
    return f"; the conversation leaves {held.last_expert}: {why}"


def priced(held: Stay) -> str:
    """Says what a move costs or saves."""
    price = held.price or 0.0
    return f"the move costs {price:.3f}" if price >= 0 else f"the move saves {-price:.3f}"


def asked_next(decision: RoutingDecision) -> str:
    """Names the next expert: of unsure queries, experts that can abstain are asked first."""
    others = [name for name in decision.ranking if name != decision.expert]
    return f", or {others[0]} where it does not answer" if others else ""


def passed_over(decision: RoutingDecision) -> str:
    """Says why an expert of higher predicted quality does not serve."""
    quality = dict(zip(decision.eligible, decision.predicted_quality, strict=True))
    best = max(quality, key=lambda name: quality[name], default=decision.expert)
    if quality.get(best, 0.0) <= quality.get(decision.expert, 0.0):
        return ""
    return f" ({best} measured higher, but by less than its error, or it is beyond a budget)"

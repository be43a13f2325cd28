"""The certificate as one page, for the person who pays."""

from __future__ import annotations

from coe.eval.report.numbers import percent, points
from coe.eval.report.page import Column, Figure, Page, Section, cell_of, facts_of, table_of
from coe.fleet.certificate import Certificate, PlanResult
from coe.router.config.policy import points_in_words

NOTE = (
    "Plans are tested from expensive to cheap, and the first that is not shown ends the sequence. The evidence is of "
    "an exact test that may be inspected after every batch; 20 shows a plan. Intervals resample prompts."
)


def plans_section(made: Certificate) -> Section:
    """Return the section that lists the tested plans and what is still missing."""
    columns: list[Column[PlanResult]] = [
        Column("Quality, points", lambda plan: plan.gain, points, is_difference=True),
        Column("Saved", lambda plan: plan.saving, percent),
        Column("Evidence", lambda plan: f"{plan.odds:.1f}"),
        Column("Shown", lambda plan: "yes" if plan.is_shown else "no"),
    ]
    plans = [(f"within {plan.floor:.4f}", plan) for plan in made.plans]
    sentence = f"{made.statement} Still missing: {made.facts['Still missing']}."
    return Section("What can be certified", sentence, table_of("Floor of the plan", plans, columns), note=NOTE)


def certificate_page(made: Certificate) -> Page:
    """Return the page of a certificate: the guarantee, the saving, the expiry and the evidence."""
    shown = made.shown
    return Page(
        kind="Certificate",
        title=f"At most {points_in_words(made.within)} below {made.of}" if shown else "Nothing is certified",
        lead=made.statement,
        figures=[
            Figure("Guaranteed", cell_of(points_in_words(made.within) if shown else "nothing")),
            Figure("Saved", cell_of(shown[-1].saving if shown else "nothing", percent)),
            Figure("Valid until", cell_of(made.until[:10] if shown else "not valid")),
            Figure("Graded", cell_of(made.n_graded)),
        ],
        picture=None,
        sections=[
            Section("Summary", table=facts_of(made.facts)),
            plans_section(made),
        ],
        tone="good" if shown else "",
    )

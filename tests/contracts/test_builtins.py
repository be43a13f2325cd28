"""Every builtin expert: found by its file, built from its examples, and quiet about what it does not understand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.probe_set import load_probes
from fleet.builtins import Builtin
from fleet.wires.builtin import FAMILY
from router import plugins

BUILT: dict[str, Builtin] = {
    kind: plugins.load(FAMILY, kind).build(plugins.load(FAMILY, kind).EXAMPLES[0]) for kind in plugins.kinds(FAMILY)
}
ABSTAINING = sorted(BUILT.keys() - {"refuse"})
OWN = {"calculator": "arithmetic", "converter": "conversion"}


def test_the_kinds_there_are() -> None:
    assert {"cache", "calculator", "converter", "refuse"} <= BUILT.keys()


@pytest.mark.parametrize("kind", ABSTAINING)
@given(text=st.text(max_size=300) | st.text(alphabet="0123456789+-*/().,%^ =x", max_size=300))
def test_any_text_gets_an_answer_or_none(kind: str, text: str) -> None:
    answer = BUILT[kind].answer(text)
    assert answer is None or (answer and len(answer) < 400)


@pytest.mark.parametrize("kind", OWN)
def test_answers_on_the_shipped_probes_are_right_and_of_its_own_category(kind: str) -> None:
    answers = [(probe, BUILT[kind].answer(probe.text)) for probe in load_probes()]
    given_ = [(probe, answer) for probe, answer in answers if answer is not None]
    assert {probe.category for probe, _ in given_} == {OWN[kind]}
    assert [probe.text for probe, answer in given_ if not probe.grader.build()(answer)] == []
    assert len(given_) >= 15  # of 16

"""Names of models in answers, and what is a change."""

from __future__ import annotations

import pytest

from coe.decision_log.decision_record import ModelChange, ModelHistory, is_change
from tests.training.log_records import record


@pytest.mark.parametrize(
    ("before", "model", "is_another"),
    [
        ("gpt-4o", "gpt-4o", False),
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("gpt-4o-2024-08-06", "gpt-4o", False),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20", True),
        ("gpt-4o-2024-08-06", "gpt-4o-mini", True),
        ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20241022", True),
        ("claude-3-5-sonnet", "claude-3-5-sonnet@20240620", False),
        ("org/base", "my-lora", True),
    ],
)
def test_a_date_more_or_less_is_no_change_and_another_date_is(before: str, model: str, is_another: bool) -> None:
    assert is_change(before, model) == is_another


def test_the_history_follows_each_expert() -> None:
    history = ModelHistory()
    names = ["a-2024-01-01", "a", None, "a-2024-02-02", "a", "b", "a-2024-02-02"]
    for seq, name in enumerate(names):
        history.add(record(seq, served_model=name))
    assert [(change.before, change.after) for change in history.changes] == [
        ("a-2024-01-01", "a-2024-02-02"),
        ("a-2024-02-02", "b"),
        ("b", "a-2024-02-02"),
    ]
    assert history.last["left"] == ModelChange("left", 16.0, "b", "a-2024-02-02")

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.decision_log.decision_record import read_record
from coe.decision_log.payloads import from_payload, to_payload
from coe.router.types import RoutingDecision
from tests.decision_log.running_log import make_record

NUMBERS = {name: str(each.annotation) for name, each in RoutingDecision.model_fields.items() if "float" in str(each)}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_a_number_of_a_decision_that_json_lacks_is_read_back(name: str, number: float) -> None:
    value: object = (0.5, number) if "tuple" in NUMBERS[name] else number
    record = make_record(0)
    changes = {name: {"law": number} if "dict" in NUMBERS[name] else value}
    decision = record.decision.model_copy(update=changes)
    logged = from_payload(to_payload(record.model_copy(update={"decision": decision, "embedding": b"{}\n"})))
    assert logged.embedding == b"{}\n"
    if name in ("confidence", "propensity"):  # which nothing reads back: they are probabilities
        assert f'"{name}":"{"-" * (number < 0)}Infinity"' in logged.line
    else:
        assert read_record(logged.line).decision == decision


@given(st.text(st.sampled_from("\0\\u0a\ufffd")))
def test_a_nul_is_marked_and_what_is_only_written_like_one_is_kept(name: str) -> None:
    line = from_payload(to_payload(make_record(0).model_copy(update={"requested_model": name}))).line
    assert json.loads(line)["requested_model"] == name.replace("\0", "\ufffd")

"""Contract of the options of every plugin, run on every example of every kind."""

from __future__ import annotations

import pytest

from coe.base.errors import ConfigError
from coe.router import plugins
from tests.contracts.examples import cases_of

FAMILIES = ("router.encoders", "router.classifiers", "router.scorers", "router.answers")
FAMILIES += ("fleet.providers", "retrieval.experts")
CASES = [pytest.param(each, *case.values, id=f"{each}-{case.id}") for each in FAMILIES for case in cases_of(each)]


@pytest.mark.parametrize(("family", "kind", "number"), CASES)
def test_options_survive_a_round_trip_are_frozen_and_refuse_what_they_do_not_know(
    family: str, kind: str, number: int
) -> None:
    options = plugins.load(family, kind).EXAMPLES[number]
    values = options.model_dump(mode="json")
    assert plugins.validate_options(family, kind, values) == options
    with pytest.raises(ConfigError, match="no_such_option"):
        plugins.validate_options(family, kind, values | {"no_such_option": 1})
    assert options.model_config["frozen"]

"""No words of pydantic's reach a reader, whatever is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coe.base.errors import ConfigError
from coe.base.fault_words import PATTERNS
from coe.router import plugins
from coe.router.config.composition import parse_config

ROOT = Path(__file__).parents[2]
PYDANTIC = re.compile(
    "(Input|String|List|Tuple|Dictionary|Value|Field|Data|Extra|Number|Object|Set|Key)s? "
    "(should|error|required|inputs|must)"
)
SHIPPED = yaml.safe_load((ROOT / "experts.yaml").read_text(encoding="utf-8"))
ODD = st.sampled_from([None, True, -1, 0, 1.5, 1e300, "", "x", "opnai", [], [1], {}, {"a": 1}, {"": None}, "x" * 5000])


def places(values: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every key path of a plain value."""
    found = [path] if path else []
    if isinstance(values, dict):
        found += [each for key, inner in values.items() for each in places(inner, (*path, key))]
    return found


def problems_of(check: Callable[[], object]) -> tuple[str, ...]:
    try:
        check()
    except ConfigError as error:
        return error.problems
    return ()


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(places(SHIPPED)), ODD)
def test_whatever_stands_anywhere_is_told_in_our_words(path, value) -> None:
    values = json.loads(json.dumps(SHIPPED))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.MonkeyPatch.context() as own:
        own.setattr(plugins, "_declared", {})  # a place of a plugin may be the odd value
        problems = problems_of(lambda: parse_config(values))
    assert [problem for problem in problems if PYDANTIC.search(problem)] == []


@pytest.mark.parametrize("family", ["router.encoders", "router.classifiers", "router.scorers", "fleet.providers"])
def test_options_of_every_kind_too(family, monkeypatch) -> None:
    monkeypatch.setattr(plugins, "_declared", {})  # what another test declared may be gone
    for kind in plugins.kinds(family):
        for name in plugins.load(family, kind).Options.model_fields:
            for odd in (None, -1, "", [[]], {"a": {}}, "ftp://x"):
                problems = problems_of(partial(plugins.validate_options, family, kind, {name: odd}))
                assert [problem for problem in problems if PYDANTIC.search(problem)] == []


def test_every_pattern_has_words() -> None:
    """A pattern that is shown as it is means nothing to most readers."""
    files = [file for room in ("base", "router", "gateway", "retrieval") for file in (ROOT / room).rglob("*.py")]
    files = [file for file in files if file.parent.name != "answers"]  # whose patterns are options of a kind
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    found = {match[1] for match in re.finditer(r'[( ]pattern=r?"((?:[^"\\]|\\.)*)"', source)}
    assert found
    assert found <= set(PATTERNS)

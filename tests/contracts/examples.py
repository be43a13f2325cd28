"""The examples of every kind of a family of plugins, which are the cases of its contract."""

from __future__ import annotations

import pytest

from coe.router import plugins


def cases_of(family: str) -> list[pytest.ParameterSet]:
    """Each kind with the number of each of its examples. A kind without any would be held to no contract."""
    numbers = {kind: range(len(plugins.load(family, kind).EXAMPLES)) for kind in plugins.kinds(family)}
    assert all(numbers.values()), f"kinds of {family} without an example: {numbers}"
    return [pytest.param(kind, each, id=f"{kind}-{each}") for kind, of_kind in numbers.items() for each in of_kind]

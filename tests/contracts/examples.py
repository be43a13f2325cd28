"""The examples of every kind of a family of plugins, which are the cases of its contract."""

from __future__ import annotations

import pytest

from router import plugins


def cases_of(family: str) -> list[pytest.ParameterSet]:
    """Each kind with the number of each of its examples."""
    return [
        pytest.param(kind, number, id=f"{kind}-{number}")
        for kind in plugins.kinds(family)
        for number in range(len(plugins.load(family, kind).EXAMPLES))
    ]

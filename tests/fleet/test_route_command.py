"""`coe route` asks the experts that are not language models, as a gateway does."""

from __future__ import annotations

from fleet.route_command import answering
from tests.small_composition import config_of


def test_builtin_experts_say_whether_they_have_an_answer() -> None:
    config = config_of(
        {
            "model": {"engine": "echo", "model": "m"},
            "adder": {"engine": "builtin", "model": "calculator"},
            "units": {"engine": "builtin", "model": "converter"},
            "never": {"engine": "builtin", "model": "refuse", "params": {"sentence": "No."}},
            "seen": {"engine": "builtin", "model": "cache"},
        }
    )
    assert answering(config, "what is 17 * 23?") == ("adder", "never")
    assert answering(config, "3 km in m") == ("units", "never")
    assert answering(config, "who wrote Faust?") == ("never",)

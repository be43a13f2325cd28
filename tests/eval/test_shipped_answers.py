"""The answers that ship are those of the experts and probes that ship."""

from __future__ import annotations

from pathlib import Path

from coe.base.journal import Journal
from coe.base.shipped import answers_file
from coe.eval.answers import Answer, answer_key
from coe.eval.collect_command import load_request
from coe.router.config.composition import load_config

ROOT = Path(__file__).parents[2]
RENEW = (
    "make run, then coe eval collect --base-url http://127.0.0.1:8000/v1 --experts-file experts.yaml "
    "--experts (all but plugins) --out data/renewed && cp data/renewed/journal.jsonl examples/smollm2/answers.jsonl"
)


def test_every_shipped_expert_has_an_answer_to_every_shipped_probe_and_none_is_left_over() -> None:
    inputs = load_request(None, ROOT / "experts.yaml", None, "http://127.0.0.1/v1", ROOT)
    models = [name for name, entry in load_config(ROOT / "experts.yaml").experts.items() if entry.engine != "plugin"]
    wanted = {answer_key(probe, inputs.fingerprints[expert]) for probe in inputs.probes for expert in models}
    found = [answer.key for answer in Journal(answers_file(), Answer).read()]
    assert len(wanted) > 1000
    assert (wanted - set(found), set(found) - wanted) == (set(), set()), f"an expert or a probe has changed: {RENEW}"
    assert len(found) == len(wanted)

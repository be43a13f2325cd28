from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from coe.base.errors import ConfigError, DataError
from coe.base.shipped import probes_folder
from coe.eval.probe_set import GraderSpec, Probe, load_probes
from coe.router.answers import Score

PROBES = load_probes()
CATEGORIES = {
    *("arithmetic", "extraction", "classification", "conversion", "shell", "sql", "code", "translation"),
    *("rewriting", "summarization", "facts", "writing", "advice", "reasoning", "chat", "general"),
}
ANSWERS: dict[str, str] = json.loads(Path(__file__).with_name("probe_answers.json").read_text(encoding="utf-8"))
"""A right answer, written by hand, for each probe whose options do not hold one."""

LINE = {
    "id": "facts-001",
    "text": "capital of Chad?",
    "category": "facts",
    "grader": {"kind": "text", "accepted": ["N'Djamena"]},
    "max_tokens": 16,
}


def right_answer(probe: Probe) -> str:
    options = probe.grader.model_dump()
    match probe.grader.kind:
        case "text":
            return str(options["accepted"][0])
        case "number":
            return f"{options['value']:g}"
        case "label":
            return str(options["label"])
        case "json":
            return json.dumps(options["expected"])
        case "sql":
            return str(options["reference"])
        case _:
            return ANSWERS[probe.id]


@pytest.fixture(scope="module")
def graders() -> dict[str, Score]:
    return {probe.id: probe.grader.build() for probe in PROBES}


def test_every_category_has_fourteen_to_sixteen_probes() -> None:
    counts = Counter(probe.category for probe in PROBES)
    assert counts.keys() == CATEGORIES
    assert all(14 <= count <= 16 for count in counts.values()), counts


def test_ids_and_texts_are_unique() -> None:
    assert len({probe.id for probe in PROBES}) == len(PROBES)
    assert len({" ".join(probe.text.casefold().split()) for probe in PROBES}) == len(PROBES)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.id)
def test_a_right_answer_scores_one_and_fits(probe: Probe, graders: dict[str, Score]) -> None:
    answer = right_answer(probe)
    assert graders[probe.id](answer) == 1.0
    assert len(answer) <= 3 * probe.max_tokens, "a token is about three characters of such text"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I'm sorry, I can't help with that.",
        "The answer depends on the context and the details of what you are looking for.",
    ],
)
def test_nothing_a_refusal_and_an_evasion_score_zero(answer: str, graders: dict[str, Score]) -> None:
    assert [id_ for id_, grade in graders.items() if grade(answer) > 0] == []


def test_repeating_the_prompt_is_never_right(graders: dict[str, Score]) -> None:
    assert [probe.id for probe in PROBES if graders[probe.id](probe.text) == 1.0] == []


@pytest.mark.parametrize("chars_per_token", [2.5, 3.0, 4.0])
def test_repeating_the_prompt_until_cut_off_is_never_right(chars_per_token: float, graders: dict[str, Score]) -> None:
    cut = {probe.id: probe.text[: int(chars_per_token * probe.max_tokens)] for probe in PROBES}
    assert [id_ for id_, text in cut.items() if graders[id_](text) == 1.0] == []


def test_the_whole_set_is_cheap() -> None:
    assert sum(probe.max_tokens for probe in PROBES) < 10_000


def test_packaged_folder_holds_only_probe_files() -> None:
    assert {file.name for file in probes_folder().iterdir()} == {f"{category}.jsonl" for category in CATEGORIES}


def test_reads_a_folder_in_order_and_skips_blank_lines(tmp_path: Path) -> None:
    second = {**LINE, "id": "facts-002", "text": "line\u2028separator"}
    lines = [json.dumps(LINE), "", json.dumps(second, ensure_ascii=False), ""]
    (tmp_path / "facts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "chat.jsonl").write_text(json.dumps({**LINE, "id": "chat-001", "category": "chat"}), encoding="utf-8")
    (tmp_path / "README.md").write_text("no probes", encoding="utf-8")
    probes = load_probes(tmp_path)
    assert [probe.id for probe in probes] == ["chat-001", "facts-001", "facts-002"]
    assert probes[1].grader.build()("n'djamena.") == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, r"facts.jsonl: row 2, field 'max_tokens': must be at least 1; got 0"),
        ({"color": "red"}, r"row 2, field 'color': is unknown; allowed: category, grader, id, max_tokens, text"),
        ({"id": "fact-2"}, r"id 'fact-2' must be the category and three digits, as in facts-001"),
        ({"category": "chat", "id": "chat-001"}, r"row 2: category 'chat' in a file of category 'facts'"),
        ({}, r"row 2: id 'facts-001' is taken by .*facts.jsonl: row 1"),
        ({"grader": {"accepted": ["x"]}}, r"row 2, field 'grader.kind': is missing"),
        ({"text": " "}, r"row 2, field 'text': must not be blank"),
    ],
)
def test_errors_name_file_line_value_and_what_is_allowed(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "facts.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps({**LINE, **change}), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_probes(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "row 1: is not JSON"), (b"\xff", "is not UTF-8 text"), (b"\n", "holds no row")],
)
def test_broken_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_probes(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_probes(tmp_path / "nowhere")


def test_grader_spec_refuses_unknown_kinds_and_options_and_a_missing_reference() -> None:
    with pytest.raises(ConfigError, match="did you mean 'text'"):
        GraderSpec.model_validate({"kind": "texts"}).build()
    with pytest.raises(ConfigError, match="accept: unknown option"):
        GraderSpec.model_validate({"kind": "text", "accept": ["x"]}).build()
    with pytest.raises(ConfigError, match="'number': its options hold no reference value to grade by; got digits"):
        GraderSpec.model_validate({"kind": "number", "digits": 3}).build()

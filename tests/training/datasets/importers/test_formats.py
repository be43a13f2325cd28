"""Peculiarities of single formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from base.errors import DataError
from tests.training.datasets.importers import format_shapes as shapes
from tests.training.datasets.importers.format_shapes import Records, dump_csv, dump_jsonl
from training.datasets.import_formats import ImportOptions, find_files, load_importer, read_outcomes_of
from training.datasets.outcome_rows import Reasons
from training.types import OutcomeTable


def read(format_name: str, *arguments: object, **options: Any) -> tuple[OutcomeTable, Reasons]:
    importer = load_importer(format_name)
    return read_outcomes_of(importer, find_files(importer, [str(a) for a in arguments]), ImportOptions(**options), "t")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "routerbench_0shot.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=r"0shot.pkl: ending '.pkl' is not allowed; .*reading a pickle runs its code"):
        read("routerbench", tmp_path / "routerbench_0shot.pkl")


def test_a_frame_may_hold_turns_and_columns_of_its_own(tmp_path: Path) -> None:
    records = shapes.routerbench()
    records[0]["prompt"] = "['Name a prime.', 'And its double?']"
    records[1]["prompt"] = "[1, 2] is a list of what?"
    for record in records:
        record["embedding"] = "0.1"
    dump_csv(tmp_path / "frame.csv", records)
    table, left_out = read("routerbench", tmp_path / "frame.csv")
    assert table.texts == ("Name a prime.\n\nAnd its double?", "[1, 2] is a list of what?")
    assert list(left_out) == ["column 'embedding', which belongs to no model"]
    assert table.cost_usd[0].tolist() == pytest.approx([0.002, 0.0001])


def test_booleans_of_a_frame_are_scores(tmp_path: Path) -> None:
    records = shapes.routerbench()
    records[0]["small"], records[1]["small"] = True, False
    dump_csv(tmp_path / "frame.csv", records)
    assert read("routerbench", tmp_path / "frame.csv")[0].scores[:, 1].tolist() == [1.0, 0.0]


def lm_eval_files(folder: Path, change: Any = lambda records: None) -> Path:
    for model in ("org__small", "org__large"):
        records = shapes.lm_eval(model.removeprefix("org__"))
        if model == "org__large":
            change(records)
        (folder / model).mkdir(parents=True)
        dump_jsonl(folder / model / "samples_quiz_hard_2026-01-02T03-04-05.678901.jsonl", records)
    return folder


def test_model_and_task_come_from_folder_and_file_name(tmp_path: Path) -> None:
    table = read("lm_eval", lm_eval_files(tmp_path))[0]
    assert table.experts == ("org/large", "org/small")
    assert table.categories == ("quiz_hard", "quiz_hard")
    assert table.prompt_ids == ("quiz_hard/0", "quiz_hard/1")


def test_a_model_can_be_named_on_the_command_line(tmp_path: Path) -> None:
    file = next(lm_eval_files(tmp_path).rglob("org__small/*.jsonl"))
    assert read("lm_eval", f"mine={file}")[0].experts == ("mine",)


def test_a_chat_prompt_is_its_last_question(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": shapes.MATHS}]

    def as_chat(records: Records) -> None:
        records[0]["arguments"] = {"gen_args_0": {"arg_0": json.dumps(chat)}}
        records[1]["arguments"] = [[shapes.BOOKS, " Goethe"]]

    assert read("lm_eval", lm_eval_files(tmp_path, as_chat))[0].texts == (shapes.MATHS, shapes.BOOKS)


def test_prompts_in_a_models_own_template_need_the_field_of_the_question(tmp_path: Path) -> None:
    def wrap(records: Records) -> None:
        for record in records:
            record["arguments"]["gen_args_0"]["arg_0"] = f"<s>[INST]{record['doc']['question']}[/INST]"

    lm_eval_files(tmp_path, wrap)
    with pytest.raises(DataError, match=r"worded otherwise .* --text-field; fields of doc: question, subject, answer"):
        read("lm_eval", tmp_path)
    assert read("lm_eval", tmp_path, text_field="question")[0].texts == (shapes.MATHS, shapes.BOOKS)


def test_another_document_under_the_same_number_is_refused(tmp_path: Path) -> None:
    def other(records: Records) -> None:
        records[1]["doc_hash"] = "another"

    with pytest.raises(DataError, match=r"row 2, field 'doc_hash': 'quiz_hard/1' is another document than at "):
        read("lm_eval", lm_eval_files(tmp_path, other))


def test_one_of_several_filters_and_metrics_must_be_chosen(tmp_path: Path) -> None:
    records = shapes.lm_eval("small")
    records += [r | {"filter": "flexible-extract", "exact_match": 1.0} for r in records]
    dump_jsonl(tmp_path / "samples_quiz.jsonl", records)
    with pytest.raises(DataError, match=r"choose one with --filter: flexible-extract, strict-match"):
        read("lm_eval", tmp_path)
    table, left_out = read("lm_eval", tmp_path, filter="flexible-extract")
    assert table.scores.tolist() == [[1.0], [1.0]]
    assert [(reason, n) for reason, (n, _) in left_out.items()] == [("under another filter than 'flexible-extract'", 2)]
    for record in records:
        record["metrics"] = ["acc", "acc_norm"]
        record |= {"acc": True, "acc_norm": 0.25}
    dump_jsonl(tmp_path / "samples_quiz.jsonl", records)
    with pytest.raises(DataError, match=r"row 1, field 'metrics': .*choose one with --metric: acc, acc_norm"):
        read("lm_eval", tmp_path, filter="strict-match")
    assert read("lm_eval", tmp_path, filter="strict-match", metric="acc")[0].scores.tolist() == [[1.0], [1.0]]
    assert read("lm_eval", tmp_path, filter="strict-match", metric="acc_norm")[0].metric == "acc_norm"


def test_generic_fields_may_have_other_names_and_chats(tmp_path: Path) -> None:
    rows = [
        {
            "chat": [{"role": "user", "content": f"question {i}"}],
            "who": m,
            "mark": i + 3,
            "meta": {"topic": "t"},
            "id": i,
        }
        for i in (0, 1)
        for m in ("a", "b")
    ]
    dump_jsonl(tmp_path / "x.jsonl", rows)
    table = read(
        "flat",
        tmp_path / "x.jsonl",
        field=["prompt=chat", "model=who", "score=mark", "prompt_id=id"],
        category_field="meta.topic",
        score_range="1:5",
    )[0]
    assert (table.prompt_ids, table.texts, table.experts) == (("0", "1"), ("question 0", "question 1"), ("a", "b"))
    assert table.categories == ("t", "t")
    assert table.scores.tolist() == [[0.5, 0.5], [0.75, 0.75]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("prompt,prompt\n", "column 'prompt' appears twice in the header"),
        (
            "prompt,category,model,score\nx,c,m\n",
            "row 1: cannot be read, .*more or fewer cells than the 4 of the header",
        ),
        (
            "prompt,category,model,score\nx,c,m,1,9\n",
            "row 1: cannot be read, .*more or fewer cells than the 4 of the header",
        ),
        ('prompt,category,model,score\n"x,c,m,1\n', "row 1: cannot be read, or only half of it"),
        ("prompt,category,model,score\n", "holds no row"),
        ("prompt,category,model,score\n\n\n", "x.csv: holds no row"),
        ("prompt,category,model,score\nx,c,m,\n", "no score was found; left out: 1 x no score"),
        ("prompt,category,model,score\nx,c,m,inf\n", "row 1, field 'score': must be a finite number; got 'inf'"),
        ("prompt,category,model,score\n ,c,m,1\n", "row 1, field 'prompt': must not be blank"),
        ("prompt,category,model,score,cost_usd\nx,c,m,1,-1\n", "field 'cost_usd': must be at least 0; got '-1'"),
        (
            "prompt,category,model,score,split\nx,c,m,1,dev\n",
            "field 'split': unknown value; allowed: , test, train, valid; got 'dev'",
        ),
        (
            "prompt,category,model,score\nx,c,m,1\nx,d,n,1\n",
            "row 2: prompt '[0-9a-f]{16}' has another category than at",
        ),
        ("prompt,category,model,score,prompt_id\nx,c,m,1,p\ny,c,n,1,p\n", "row 2: prompt 'p' has another text than at"),
    ],
)
def test_a_malformed_csv_is_named_with_row_and_column(content: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=complaint):
        read("flat", tmp_path / "x.csv")


def test_excel_marks_long_prompts_and_line_breaks_are_read(tmp_path: Path) -> None:
    long = "a line\r\nand, another " + "x" * 200_000
    (tmp_path / "x.csv").write_bytes(f'\ufeffprompt,category,model,score\r\n"{long}",c,m,1\r\n'.encode())
    assert read("flat", tmp_path / "x.csv")[0].texts == (long,)


def test_what_is_no_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"x.jsonl: is not UTF-8 text"):
        read("flat", tmp_path / "x.jsonl")


def test_no_prompt_text_is_in_a_complaint(tmp_path: Path) -> None:
    secret = "my password is hunter2 " * 10
    rows = [{"prompt": secret, "category": "c", "model": "m", "score": secret}]
    dump_jsonl(tmp_path / "x.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read("flat", tmp_path / "x.jsonl")
    assert "hunter2" not in str(caught.value)


def test_missing_files_and_empty_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.csv: no such file or folder"):
        read("flat", tmp_path / "nothing.csv")
    with pytest.raises(DataError, match=r"holds no file named samples_\*.jsonl"):
        read("lm_eval", tmp_path)

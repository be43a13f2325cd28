"""What is peculiar to single formats."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from router.errors import DataError
from tests.training.datasets.importers import format_shapes as shapes
from tests.training.datasets.importers.format_shapes import Records, dump_csv, dump_json, dump_jsonl
from training.datasets.import_formats import Imported, ImportOptions, find_files, load_importer, read_outcomes_of


def read(format_name: str, *arguments: object, **options: Any) -> Imported:
    importer = load_importer(format_name)
    return read_outcomes_of(importer, find_files(importer, [str(a) for a in arguments]), ImportOptions(**options), "t")


def test_a_pickle_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "routerbench_0shot.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(
        DataError, match=r"routerbench_0shot.pkl: is a pickle, and reading a pickle runs the code in it"
    ):
        read("routerbench", tmp_path / "routerbench_0shot.pkl")


def test_a_frame_may_hold_turns_and_columns_of_its_own(tmp_path: Path) -> None:
    records = shapes.routerbench()
    records[0]["prompt"] = "['Name a prime.', 'And its double?']"
    records[1]["prompt"] = "[1, 2] is a list of what?"
    for record in records:
        record["embedding"] = "0.1"
    dump_csv(tmp_path / "frame.csv", records)
    imported = read("routerbench", tmp_path / "frame.csv")
    assert imported.table.texts == ("Name a prime.\n\nAnd its double?", "[1, 2] is a list of what?")
    assert list(imported.left_out.count) == ["column 'embedding', which belongs to no model"]
    assert imported.table.cost_usd[0].tolist() == pytest.approx([0.002, 0.0001])


def test_booleans_of_a_frame_are_scores(tmp_path: Path) -> None:
    records = shapes.routerbench()
    records[0]["small"], records[1]["small"] = True, False
    dump_csv(tmp_path / "frame.csv", records)
    assert read("routerbench", tmp_path / "frame.csv").table.scores[:, 1].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("preference", "score"), [(1, 0.0), (2, 1.0), (1.5, 0.5), (0, 0.5), (1.25, 0.25), (2.0000001, 1.0)]
)
def test_a_preference_is_a_win_over_the_reference(preference: float, score: float, tmp_path: Path) -> None:
    records = shapes.alpaca_eval("small")
    records[0]["preference"] = preference
    dump_json(tmp_path / "annotations.json", records)
    assert read("alpaca_eval", tmp_path / "annotations.json").table.scores[0, 0] == pytest.approx(score)


def test_two_judges_are_not_mixed(tmp_path: Path) -> None:
    for judge in ("a", "b"):
        records = [r | {"annotator": judge} for r in shapes.alpaca_eval("small" if judge == "a" else "large")]
        (tmp_path / judge).mkdir()
        dump_json(tmp_path / judge / "annotations.json", records)
    with pytest.raises(DataError, match=r"by_b', and by 'win_over_gpt4_1106_preview_by_a' .*choose one with --metric"):
        read("alpaca_eval", tmp_path)
    imported = read("alpaca_eval", tmp_path, metric="win_over_gpt4_1106_preview_by_b")
    assert imported.table.experts == ("large",)
    assert list(imported.left_out.count.values()) == [2]


def test_a_second_reference_is_refused_on_another_prompt_too(tmp_path: Path) -> None:
    records = shapes.alpaca_eval("small")
    records[-1]["generator_1"] = "text_davinci_003"
    dump_json(tmp_path / "annotations.json", records)
    with pytest.raises(DataError, match=f"row {len(records)}: is scored by 'win_over_text_davinci_003.*with --metric"):
        read("alpaca_eval", tmp_path / "annotations.json")


def test_a_label_for_all_stands_in_for_a_missing_one(tmp_path: Path) -> None:
    records = shapes.alpaca_eval("small")
    for record in records:
        del record["dataset"]
    dump_json(tmp_path / "annotations.json", records)
    with pytest.raises(DataError, match=r"row 1, field 'dataset': is missing.*or give all one with --category"):
        read("alpaca_eval", tmp_path / "annotations.json")
    assert set(read("alpaca_eval", tmp_path / "annotations.json", category="chat").table.categories) == {"chat"}


def test_a_failed_call_is_no_answer(tmp_path: Path) -> None:
    records = shapes.llmrouter()
    records[1] |= {"response": "ERROR: timeout", "token_num": 0, "performance": 0.0}
    dump_jsonl(tmp_path / "routing.jsonl", records)
    imported = read("llmrouter", tmp_path / "routing.jsonl")
    assert imported.left_out.count == {"the call of the model had failed": 1}
    assert np.isnan(imported.table.scores).sum() == 1


def test_one_question_with_two_answers_is_two_prompts(tmp_path: Path) -> None:
    records = shapes.llmrouter()
    records += [r | {"ground_truth": "5"} for r in records[:2]]
    dump_jsonl(tmp_path / "routing.jsonl", records)
    table = read("llmrouter", tmp_path / "routing.jsonl").table
    assert len(table.prompt_ids) == 3
    assert table.latency_ms[0, 0] == pytest.approx(150)
    assert table.output_tokens[0, 0] == 12


def lm_eval_files(folder: Path, change: Any = lambda records: None) -> Path:
    for model in ("org__small", "org__large"):
        records = shapes.lm_eval(model.removeprefix("org__"))
        if model == "org__large":
            change(records)
        (folder / model).mkdir(parents=True)
        dump_jsonl(folder / model / "samples_quiz_hard_2026-01-02T03-04-05.678901.jsonl", records)
    return folder


def test_model_and_task_come_from_folder_and_file_name(tmp_path: Path) -> None:
    table = read("lm_eval", lm_eval_files(tmp_path)).table
    assert table.experts == ("org/large", "org/small")
    assert table.categories == ("quiz_hard", "quiz_hard")
    assert table.prompt_ids == ("quiz_hard/0", "quiz_hard/1")


def test_a_model_can_be_named_on_the_command_line(tmp_path: Path) -> None:
    file = next(lm_eval_files(tmp_path).rglob("org__small/*.jsonl"))
    assert read("lm_eval", f"mine={file}").table.experts == ("mine",)


def test_a_chat_prompt_is_its_last_question(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": shapes.MATHS}]

    def as_chat(records: Records) -> None:
        records[0]["arguments"] = {"gen_args_0": {"arg_0": json.dumps(chat)}}
        records[1]["arguments"] = [[shapes.BOOKS, " Goethe"]]

    assert read("lm_eval", lm_eval_files(tmp_path, as_chat)).table.texts == (shapes.MATHS, shapes.BOOKS)


def test_prompts_in_a_models_own_template_need_the_field_of_the_question(tmp_path: Path) -> None:
    def wrap(records: Records) -> None:
        for record in records:
            record["arguments"]["gen_args_0"]["arg_0"] = f"<s>[INST]{record['doc']['question']}[/INST]"

    lm_eval_files(tmp_path, wrap)
    with pytest.raises(DataError, match=r"worded otherwise .* --text-field; fields of doc: question, subject, answer"):
        read("lm_eval", tmp_path)
    assert read("lm_eval", tmp_path, text_field="question").table.texts == (shapes.MATHS, shapes.BOOKS)


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
    imported = read("lm_eval", tmp_path, filter="flexible-extract")
    assert imported.table.scores.tolist() == [[1.0], [1.0]]
    assert imported.left_out.count == {"under another filter than 'flexible-extract'": 2}
    for record in records:
        record["metrics"] = ["acc", "acc_norm"]
        record |= {"acc": True, "acc_norm": 0.25}
    dump_jsonl(tmp_path / "samples_quiz.jsonl", records)
    with pytest.raises(DataError, match=r"row 1, field 'metrics': .*choose one with --metric: acc, acc_norm"):
        read("lm_eval", tmp_path, filter="strict-match")
    assert read("lm_eval", tmp_path, filter="strict-match", metric="acc").table.scores.tolist() == [[1.0], [1.0]]
    assert read("lm_eval", tmp_path, filter="strict-match", metric="acc_norm").table.metric == "acc_norm"


def inspect_log(folder: Path, samples: Records, **header: Any) -> Path:
    path = folder / "small.json"
    path.write_text(json.dumps(shapes.inspect_header(path) | header | {"samples": samples}), encoding="utf-8")
    return path


def test_inspect_cost_and_tokens_are_the_models_own(tmp_path: Path) -> None:
    table = read("inspect", inspect_log(tmp_path, shapes.inspect("small"))).table
    assert table.cost_usd[0, 0] == 0.25
    assert table.output_tokens[0, 0] == 12
    assert table.latency_ms[0, 0] == pytest.approx(150)
    assert table.experts == ("provider/small",)
    assert table.categories == ("quiz", "quiz")


def test_epochs_are_averaged(tmp_path: Path) -> None:
    samples = shapes.inspect("large")
    again = [s | {"epoch": 2, "scores": {"match": {"value": "I"}}, "working_time": 0.45} for s in samples]
    table = read("inspect", inspect_log(tmp_path, samples + again)).table
    assert table.scores.tolist() == [[0.5], [0.5]]
    assert table.latency_ms[0, 0] == pytest.approx(300)


def test_choices_messages_and_attachments_are_part_of_the_question(tmp_path: Path) -> None:
    samples = shapes.inspect("small")
    samples[0] |= {
        "input": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "attachment://abc"}],
        "attachments": {"abc": "A long question?"},
        "choices": ["yes", "no"],
    }
    samples[1] |= {"input": [{"role": "user", "content": [{"type": "text", "text": "Two"}, {"type": "image"}]}]}
    texts = read("inspect", inspect_log(tmp_path, samples)).table.texts
    assert texts == ("A long question?\n\nA) yes\nB) no", "Two")
    samples[0]["attachments"] = {}
    with pytest.raises(DataError, match=r"row 1, field 'attachments': 'attachment://abc' is not there"):
        read("inspect", inspect_log(tmp_path, samples))


def test_one_of_several_scorers_must_be_chosen(tmp_path: Path) -> None:
    samples = shapes.inspect("small")
    for sample in samples:
        sample["scores"]["judge"] = {"value": {"style": 3, "facts": 9}}
    log = inspect_log(tmp_path, samples)
    with pytest.raises(DataError, match=r"choose one with --metric: judge.facts, judge.style, match"):
        read("inspect", log)
    assert read("inspect", log, metric="judge.facts", score_range=(0, 12)).table.scores[0, 0] == 0.75


def test_a_word_that_is_no_score_is_not_a_zero(tmp_path: Path) -> None:
    samples = shapes.inspect("small")
    samples[1]["scores"]["match"]["value"] = "incorrect"
    with pytest.raises(DataError, match=r"row 2, field 'scores': expected a number; got a text 'incorrect'"):
        read("inspect", inspect_log(tmp_path, samples))


def test_a_sample_that_failed_is_counted(tmp_path: Path) -> None:
    samples = shapes.inspect("small")
    samples[1] |= {"scores": None, "error": {"message": "timeout"}}
    assert read("inspect", inspect_log(tmp_path, samples)).left_out.count == {"the sample ended in an error": 1}


def test_a_run_that_did_not_finish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"field 'status': 'error' is a run that did not finish"):
        read("inspect", inspect_log(tmp_path, shapes.inspect("small"), status="error"))
    with zipfile.ZipFile(tmp_path / "started.eval", "w") as log:
        log.writestr("_journal/start.json", "{}")
    with pytest.raises(DataError, match=r"holds no header.json.*did not finish"):
        read("inspect", tmp_path / "started.eval")


def as_zstd(path: Path) -> None:
    """Rewrites a zip of stored Zstandard data so that it says method 93, as Inspect writes it."""
    with zipfile.ZipFile(path) as log:
        plain = {name: log.read(name) for name in log.namelist()}
    packed = {name: pa.Codec("zstd").compress(data, asbytes=True) for name, data in plain.items()}
    with zipfile.ZipFile(path, "w") as log:
        for name, data in packed.items():
            log.writestr(name, data)
        entries = {info.filename: info for info in log.infolist()}
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for name, data in plain.items():
        local = entries[name].header_offset
        struct.pack_into("<H", content, local + 8, 93)
        struct.pack_into("<III", content, local + 14, zlib.crc32(data), len(packed[name]), len(data))
        struct.pack_into("<H", content, directory + 10, 93)
        struct.pack_into("<III", content, directory + 16, zlib.crc32(data), len(packed[name]), len(data))
        directory += 46 + len(name)
    path.write_bytes(content)


def test_zstandard_logs_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "small.eval"
    shapes.dump_inspect_zip(path, shapes.inspect("small"))
    as_zstd(path)
    assert read("inspect", path).table.scores.tolist() == [[0.5], [0.0]]
    content = bytearray(path.read_bytes())
    content[content.index(b"samples/1_epoch_1.json") + 22 + 20] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"small.eval: (is not a zip file, or only half of it|cannot be read|.*is not JSON)"
    ):
        read("inspect", path)


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
        "jsonl",
        tmp_path / "x.jsonl",
        fields={"prompt": "chat", "model": "who", "score": "mark", "prompt_id": "id"},
        category_field="meta.topic",
        score_range=(1, 5),
    ).table
    assert (table.prompt_ids, table.texts, table.experts) == (("0", "1"), ("question 0", "question 1"), ("a", "b"))
    assert table.categories == ("t", "t")
    assert table.scores.tolist() == [[0.5, 0.5], [0.75, 0.75]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("prompt,prompt\n", "column 'prompt': stands twice"),
        ("prompt,category,model,score\nx,c,m\n", "row 1, column 'score': the row ends before it"),
        ("prompt,category,model,score\nx,c,m,1,9\n", "row 1: has 5 cells; the header has 4"),
        ('prompt,category,model,score\n"x,c,m,1\n', "row 1: is not CSV, or only half of it"),
        ("prompt,category,model,score\n", "holds no row"),
        ("prompt,category,model,score\n\n\n", "x.csv: holds no row"),
        ("prompt,category,model,score\nx,c,m,\n", "no score was found; left out: 1 x no score"),
        ("prompt,category,model,score\nx,c,m,inf\n", "row 1, column 'score': inf is not allowed"),
        ("prompt,category,model,score\n ,c,m,1\n", "row 1, column 'prompt': is empty"),
        ("prompt,category,model,score,cost_usd\nx,c,m,1,-1\n", "column 'cost_usd': -1 is not allowed; expected 0 or"),
        ("prompt,category,model,score,split\nx,c,m,1,dev\n", "'split': 'dev' is unknown"),
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
        read("csv", tmp_path / "x.csv")


def test_excel_marks_long_prompts_and_line_breaks_are_read(tmp_path: Path) -> None:
    long = "a line\r\nand, another " + "x" * 200_000
    (tmp_path / "x.csv").write_bytes(f'\ufeffprompt,category,model,score\r\n"{long}",c,m,1\r\n'.encode())
    assert read("csv", tmp_path / "x.csv").table.texts == (long,)


def test_what_is_no_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"x.jsonl: is not UTF-8 text"):
        read("jsonl", tmp_path / "x.jsonl")


def test_no_prompt_text_is_in_a_complaint(tmp_path: Path) -> None:
    secret = "my password is hunter2 " * 10
    rows = [{"prompt": secret, "category": "c", "model": "m", "score": secret}]
    dump_jsonl(tmp_path / "x.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read("jsonl", tmp_path / "x.jsonl")
    assert "hunter2" not in str(caught.value)


def test_missing_files_and_empty_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.csv: no such file or folder"):
        read("csv", tmp_path / "nothing.csv")
    with pytest.raises(DataError, match=r"holds no file named samples_\*.jsonl"):
        read("lm_eval", tmp_path)

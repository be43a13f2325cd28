"""`python -m benchmarks.retrieval_eval` on small collections with the packaged base."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from benchmarks.retrieval_eval.__main__ import retrieval
from benchmarks.retrieval_eval.records import RetrievalReport
from benchmarks.retrieval_eval.request import requested_experts
from coe.base.errors import BackendError, ConfigError, DataError
from coe.retrieval.routing.pilot_library import load_library
from tests.eval.drawn import charts_of_page
from tests.fleet.encoders.endpoint import Endpoint, serving_endpoint
from tests.retrieval.training.collection_files import write_beir

ARMS = {"base", "bm25", "rrf", "hybrid", "coe", "collection_oracle", "query_oracle"}


def evaluate(data: Path, out: Path, **options: object) -> RetrievalReport:
    with patch.dict(os.environ, COE_CACHE_DIR=str(out.parent / "cache")):
        retrieval(data=data, out=out, experts=options.get("experts"), seed=0)
    return RetrievalReport.model_validate_json((out / "report.json").read_text())


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving_endpoint() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two collections with all splits, one packed, and one with test queries alone."""
    root = tmp_path_factory.mktemp("collections")
    write_beir(root / "north", "n")
    write_beir(root / "south", "s", compressed=True)
    write_beir(root / "foreign", "f", splits=("test",))
    return root


@pytest.fixture(scope="module")
def report(folder: Path) -> RetrievalReport:
    return evaluate(folder, folder.parent / "out")


def test_every_collection_has_its_arms_with_intervals(report: RetrievalReport) -> None:
    assert set(report.collections) == {"north", "south", "foreign"}
    for found in report.collections.values():
        assert set(found.arms) == ARMS
        assert found.arms["coe"].lead.mean == 0
        assert found.arms["base"].lead.mean == pytest.approx(found.arms["coe"].gain.mean)
        for arm in found.arms.values():
            low, high = arm.interval
            assert 0 <= low <= arm.ndcg_at_10 <= high <= 1
        assert found.arms["base"].gain.mean == 0
        assert found.arms["query_oracle"].ndcg_at_10 >= found.arms["collection_oracle"].ndcg_at_10
        assert found.arms["collection_oracle"].ndcg_at_10 >= max(found.arms[a].ndcg_at_10 for a in ("base", "bm25"))
        assert sum(found.shares.values()) == pytest.approx(1)
    assert report.collections["north"].labelled == 8
    assert report.collections["foreign"].labelled == 0


def test_the_keys_that_others_read_are_where_they_were_promised(folder: Path, report: RetrievalReport) -> None:
    plain = json.loads((folder.parent / "out" / "report.json").read_text())
    arm = plain["collections"]["north"]["arms"]["coe"]
    assert arm["ndcg_at_10"] == report.collections["north"].arms["coe"].ndcg_at_10
    assert len(arm["interval"]) == 2
    assert "bm25" in plain["collections"]["north"]["experts"]


def test_the_library_that_was_measured_is_written(folder: Path, report: RetrievalReport) -> None:
    library = load_library(folder.parent / "out" / "pilots")
    assert library.manifest.version == report.library_version
    assert library.manifest.data_sets == ("north", "south")


def test_the_page_stands_alone_and_escapes_what_it_shows(folder: Path, report: RetrievalReport) -> None:
    page = (folder.parent / "out" / "report.html").read_text()
    assert {"picture", "chart-by-collection"} == set(charts_of_page(page))
    assert "http://" not in page.split("<script>")[0]
    for name in report.collections:
        assert name in page
    assert report.headline.replace("+", "+") in page.replace("&#43;", "+")


def test_one_collection_without_train_queries_is_served_by_base_with_bm25(folder: Path, tmp_path: Path) -> None:
    report = evaluate(folder / "foreign", tmp_path / "out")
    found = report.collections["foreign"]
    assert found.arms["coe"].ndcg_at_10 == pytest.approx(found.experts["base+bm25"], abs=1e-4)
    assert found.shares == {"base+bm25": 1.0}
    assert found.reasons == {"unprepared": 1.0}
    assert report.library_version == "none"
    assert not (tmp_path / "out" / "pilots").exists()


def test_a_collection_of_fewer_documents_than_a_page_of_results_is_measured(tmp_path: Path) -> None:
    write_beir(tmp_path / "few", splits=("test",))
    corpus = tmp_path / "few" / "corpus.jsonl"
    corpus.write_text("".join(corpus.read_text().splitlines(keepends=True)[:3]))
    report = evaluate(tmp_path / "few", tmp_path / "out")
    assert report.collections["few"].documents == 3


def test_the_same_data_give_the_same_figures(folder: Path, tmp_path: Path) -> None:
    first, second = (evaluate(folder / "north", tmp_path / name) for name in ("a", "b"))
    assert first.collections == second.collections
    assert first.library_version == second.library_version


def test_the_mean_over_prepared_collections_stands_apart_where_others_are_not(
    folder: Path, report: RetrievalReport, tmp_path: Path
) -> None:
    evaluate(folder / "north", tmp_path / "out")
    pages = [(out / "report.html").read_text() for out in (folder.parent / "out", tmp_path / "out")]
    assert ["With train queries" in page for page in pages] == [True, False]


def test_no_collection_no_test_queries_and_no_expert_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        evaluate(tmp_path / "nowhere", tmp_path / "out")
    write_beir(tmp_path / "early", splits=("train",))
    with pytest.raises(DataError, match="no collection has test queries"):
        evaluate(tmp_path / "early", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"does not exist; expected experts\.yaml"):
        requested_experts(tmp_path / "early")


def test_a_hosted_expert_gets_the_key_of_the_environment(
    folder: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[3] / "experts.yaml").read_text().split("\nretrieval:")[0]
    base = "encoder: {kind: bert}"
    hosted = f"{{kind: openai, url: '{endpoint.url}', model: m, dim: 2, api_key_env: EMBEDDINGS_KEY}}"
    (tmp_path / "experts.yaml").write_text(f"{text}\nretrieval:\n  {base}\n  experts:\n    hosted: {hosted}\n")
    monkeypatch.setenv("EMBEDDINGS_KEY", "secret-of-ours")
    endpoint.status = 401
    with pytest.raises(BackendError) as refused:
        evaluate(folder / "north", tmp_path / "out", experts=tmp_path / "experts.yaml")
    assert "secret-of-ours" not in str(refused.value)
    assert endpoint.asked[0][1] == "Bearer secret-of-ours"


def test_an_experts_file_needs_its_section(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "experts.yaml").read_text()
    (tmp_path / "experts.yaml").write_text(text.split("\nretrieval:")[0])
    with pytest.raises(ConfigError, match="has no 'retrieval' section"):
        requested_experts(tmp_path / "experts.yaml")
    (tmp_path / "with.yaml").write_text(
        text.split("\nretrieval:")[0]
        + "\nretrieval:\n  encoder: {kind: bert}\n  experts:\n    words: {kind: bm25, k1: 0.9}\n"
    )
    section, root = requested_experts(tmp_path / "with.yaml")
    assert list(section.experts) == ["words"]
    assert list(requested_experts(None)[0].experts) == ["bm25"]
    assert root == tmp_path

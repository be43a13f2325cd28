"""`coe experts probe`: a new column of the map, how sure it is, and nothing else."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from coe.base.errors import ConfigError, DataError
from coe.cli.command_line import run
from coe.eval.probe_command import probes_by_row
from coe.eval.probe_set import Probe
from coe.fleet.router_registry import Registry
from coe.router.build import evidence_of, load_router
from coe.router.config.composition import load_config
from coe.router.model_files.artifact import load_artifact
from coe.router.quality import QualityMatrix
from coe.training.onboarding import CategoryOutlook, Onboarding, joined_evidence, onboard
from tests.training.trained_folder import CONFIG, EXPERTS, NOW, make_trained, outcome_table


def with_expert(folder: Path, name: str) -> Path:
    """experts.yaml with one more expert."""
    config = {**CONFIG, "experts": {**CONFIG["experts"], name: {"engine": "echo", "model": name}}}
    (folder / "experts.yaml").write_text(yaml.dump(config))
    return folder / "experts.yaml"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trained(tmp_path_factory.mktemp("trained"), per_category=12)


@pytest.fixture
def trained(first: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(first, tmp_path / "copy"))


def probe(folder: Path, scores: dict[str, float], *, per_category: int = 12, luck: float = 0.01) -> Onboarding:
    """Adds `third`, which has those scores on the categories."""
    config = load_config(with_expert(folder, "third"))
    prompts = [(category, i) for category in scores for i in range(1, per_category + 1)]
    rng = np.random.default_rng(0)
    values = np.array([[np.clip(scores[c] + rng.normal(0, 0.05), 0, 1)] for c, _ in prompts])
    registry = Registry(folder / "data" / "routers")
    live = registry.folder(registry.live().version)
    table = outcome_table(prompts, ("third",), values)
    return onboard(config, live, "third", table, None, now=NOW, luck=np.full(3, luck))


def test_a_specialist_takes_its_category_and_leaves_the_rest_as_it_was(trained: Path) -> None:
    found = probe(trained, {"sql": 0.95, "facts": 0.1, "general": 0.1})
    assert found.taken == ("sql",)
    assert found.n_probes == 36
    sql = found.outlook[0]
    assert (sql.category, sql.serves, sql.count, sql.is_decided) == ("sql", "left", 12, True)
    assert sql.difference == pytest.approx(0.35, abs=0.1)
    assert sql.chance_better > 0.99
    parent = load_artifact(trained / "data" / "routers" / found.parent)
    child = found.artifact
    assert child.manifest.parents == (found.parent,)
    assert child.manifest.experts == (*EXPERTS, "third")
    assert "probes of third" in child.manifest.data_fingerprints
    assert child.manifest.version != found.parent
    before, after = evidence_of(parent), evidence_of(child)
    for name, array in before.columns([0, 1]).arrays().items():
        kept = after.columns([0, 1]).arrays()[name]
        assert np.array_equal(array, kept), name
    for name in parent.arrays:
        if not name.startswith("map."):
            assert np.array_equal(parent.arrays[name], child.arrays[name]), name


def test_the_live_router_is_not_touched_and_the_new_one_loads(trained: Path) -> None:
    registry = Registry(trained / "data" / "routers")
    live = registry.live()
    found = probe(trained, {"sql": 0.95, "facts": 0.1, "general": 0.1})
    assert registry.live() == live
    router = load_router(load_config(trained / "experts.yaml"), registry.folder(found.artifact.manifest.version))
    assert router.expert_of()["sql"] == "third"


def test_one_that_is_no_better_takes_nothing_and_says_how_unsure_it_is(trained: Path) -> None:
    found = probe(trained, {"sql": 0.58, "facts": 0.58, "general": 0.58}, per_category=4)
    assert found.taken == ()
    undecided = [row for row in found.outlook if not row.is_decided]
    assert all(0.0 < row.chance_better < 1.0 for row in undecided)


def test_hard_probes_are_no_fault_of_the_expert() -> None:
    """Probes on which the others score 0.1 instead of their usual 0.5: 0.3 there is a good score."""
    one = np.ones((2, 2), np.float32)
    evidence = QualityMatrix(0.5 * one, 0.01 * one, 50 * one, np.array([0.5, 0.5], np.float32), one[0], one, one)
    prompts = [("sql", i) for i in range(1, 21)]
    probed = outcome_table(prompts, ("third",), np.full((20, 1), 0.3))
    others = outcome_table(prompts, EXPERTS, np.full((20, 2), 0.1))
    known, blind = (joined_evidence(evidence, probed, table, ("sql",)) for table in (others, None))
    assert known.quality[0, 2] == pytest.approx(0.7, abs=0.01)
    assert blind.quality[0, 2] == pytest.approx(0.3, abs=0.01)


def test_errors_hold_the_truth_at_their_rate() -> None:
    """Expert of true quality 0.6 on each of four categories, 16 yes/no probes each: two standard errors hold it."""
    rng = np.random.default_rng(0)
    one = np.ones((5, 2), np.float32)
    evidence = QualityMatrix(0.5 * one, 0.01 * one, 50 * one, one[:, 0] / 5, one[:, 0], one, one)
    categories = ("a", "b", "c", "d")
    prompts = [(name, i) for name in categories for i in range(16)]
    inside = total = 0
    for _ in range(150):
        values = (rng.random((64, 1)) < 0.6).astype(float)
        joined = joined_evidence(evidence, outcome_table(prompts, ("third",), values), None, categories)
        error = np.abs(joined.quality[:4, 2] - 0.6)
        inside += int((error <= 1.96 * joined.stderr[:4, 2]).sum())
        total += 4
    assert inside / total > 0.9  # 0.775 without the error of the mean that cells are shrunk towards


def test_probes_needed_follow_from_the_error() -> None:
    row = CategoryOutlook("sql", 16, 0.6, 0.1, "left", difference=0.1, stderr=0.1, takes=False, luck=0.5)
    assert row.probes_needed == 62  # 16 * 1.96^2
    assert row.chance_better == pytest.approx(0.8413, abs=1e-4)
    sure = CategoryOutlook("sql", 16, 0.9, 0.1, "left", difference=0.3, stderr=0.1, takes=True, luck=0.01)
    assert sure.probes_needed is None


def test_without_proof_nothing_is_taken_and_the_map_stays(trained: Path) -> None:
    found = probe(trained, {"sql": 0.95, "facts": 0.9, "general": 0.9}, luck=0.2)
    assert found.taken == ()
    assert found.outlook[0].quality > 0.85  # shown as measured


def test_who_cannot_join(trained: Path) -> None:
    registry = Registry(trained / "data" / "routers")
    live = registry.folder(registry.live().version)
    config = load_config(with_expert(trained, "third"))
    nothing = outcome_table([("sql", 1)], ("third",), np.array([[np.nan]]))
    with pytest.raises(ConfigError, match="no expert 'fourth'"):
        onboard(config, live, "fourth", nothing, None, now=NOW, luck=np.ones(3))
    with pytest.raises(ConfigError, match="'left' is on the map"):
        onboard(config, live, "left", nothing, None, now=NOW, luck=np.ones(3))
    with pytest.raises(DataError, match="no answer of 'third' was graded"):
        onboard(config, live, "third", nothing, None, now=NOW, luck=np.ones(3))


def test_probes_are_kept_to_the_wanted_categories() -> None:
    grader = {"kind": "text", "answer": "a"}
    texts = [(name, f"{name}-{i:03}") for name in ("sql", "facts", "other") for i in range(4)]
    probes = [Probe(id=each, text=each, category=name, grader=grader, max_tokens=1) for name, each in texts]
    rows = probes_by_row(probes, ("facts", "sql"), ())
    assert [len(row) for row in rows] == [4, 4, 4]  # what the map does not know counts as general
    assert [len(row) for row in probes_by_row(probes, ("facts", "sql"), ("sql",))] == [0, 4, 0]
    with pytest.raises(DataError, match=r"no probe of 'sqk'.*sql"):
        probes_by_row(probes, ("facts", "sql"), ("sqk",))


async def test_the_command_asks_grades_and_adds(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new expert answers 42 to everything; that is right for SQL probes and wrong for the others."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((await request.json())["model"])
        message = {"role": "assistant", "content": "42"}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    config = with_expert(trained, "third")
    probes = trained / "probes.jsonl"
    lines = [
        {
            "id": f"{category}-{i:03}", "text": f"probe {i} of {category}", "category": category, "max_tokens": 8,
            "grader": {"kind": "number", "value": 42 if category == "sql" else 7},
        }
        for category in ("facts", "general", "sql")
        for i in range(1, 13)
    ]  # fmt: skip
    probes.write_text("".join(json.dumps(line) + "\n" for line in lines))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    server = TestServer(app)
    await server.start_server()
    monkeypatch.setenv("COLUMNS", "160")
    words = ["third", "--base-url", f"http://127.0.0.1:{server.port}/v1", "--probes-from", str(probes)]
    words += ["--probes", "32", "--config", str(config), "--data-dir", str(trained / "data"), "--promote"]
    status = await asyncio.to_thread(run, "experts probe", words)
    await server.close()
    said = capsys.readouterr().out
    assert status == 0
    assert asked == ["third"] * 32
    assert "third: mean score 0.375 ± 0.087 on 32 probes" in said  # all 12 of SQL, 10 of the others each
    assert "one in 10 such" in said
    assert "third takes sql" in said
    live = Registry(trained / "data" / "routers").live()
    assert f"router {live.version} is live" in said


def test_the_command_fails_in_one_line_before_anything_is_asked(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["right", "--config", str(trained / "experts.yaml"), "--data-dir", str(trained / "data")]
    assert run("experts probe", words) == 1
    assert "'right' is on the map of router" in capsys.readouterr().err
    assert not (trained / "data" / "outcomes" / "probe-right").exists()


@pytest.mark.parametrize(("price", "taken"), [(10.0, ("sql",)), (0.0, ())])
def test_a_cheaper_newcomer_needs_no_test_of_luck_where_it_is_as_good(
    trained: Path, monkeypatch: pytest.MonkeyPatch, price: float, taken: tuple[str, ...]
) -> None:
    """Its lead in `sql` may be luck, as that of every second expert; `left` serves there, for this price."""
    left = CONFIG["experts"]["left"] | {"price": {"input": price, "output": price}}
    monkeypatch.setitem(CONFIG["experts"], "left", left)
    found = probe(trained, {"sql": 0.95, "facts": 0.1, "general": 0.1}, luck=0.5)
    assert found.taken == taken

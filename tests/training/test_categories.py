"""`coe categories` on a real log: a topic that appears in the traffic, with and without its text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.base.intervals import wilson_interval
from coe.cli.command_line import run
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionInputs
from coe.decision_log.tables import FEEDBACK
from coe.fleet.router_registry import Registry
from coe.router.build import load_router
from coe.router.config import load_config
from coe.router.features import features_hash, to_bytes
from coe.router.log_config import LogConfig, PrivacyLevel
from coe.router.types import Query, QueryFacts
from coe.training.category_commands import distinct, write_proposals
from coe.training.datasets.labelled_queries import read_seed
from coe.training.new_categories import DeadCategory, Proposals, ProposeRequest, best_gain, decisions_to_see, propose
from tests.logged import answered
from tests.training.trained_folder import EXPERTS, make_trained

ROOT = Path(__file__).parent.parent.parent
PLANTS = ("orchid", "fern", "cactus", "bonsai", "tulip", "basil")
CARE = ("repot", "water", "prune", "feed", "propagate", "revive")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few numbers of clusters and subsamples: the truth here is plain."""
    monkeypatch.setattr("coe.training.topics.CLUSTERS", range(2, 7))
    monkeypatch.setattr("coe.training.topics.SUBSAMPLES", 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trained(tmp_path_factory.mktemp("trained"))


def log_traffic(folder: Path, url: str, *, keeps_text: bool = True, keeps_vectors: bool = True, end: str = "") -> None:
    """60 SQL asks the router knows, and 36 about plants, two of each, which `right` answers far better.

    Args:
        end: of every kept text.
    """
    router = load_router(load_config(folder / "experts.yaml"), Registry(folder / "data" / "routers").folders()[0])
    texts = [f"write a sql query that selects column {i} from table users" for i in range(60)]
    texts += [f"{care} {plant} houseplant terrarium" for care in CARE for plant in PLANTS] * 2
    store = Database(url)
    records, said = [], []
    rng = np.random.default_rng(0)
    for i, text in enumerate(texts):
        vector = router.embed(text)
        decision = router.decide(Query(str(i), text), rng=rng, embedding=vector)
        is_plant = i >= 60
        update = {"is_fallback": is_plant, "category": "general" if is_plant else "sql"}
        expert = EXPERTS[i % 2]
        name = f"dec-{i}"
        inputs = DecisionInputs(
            encoder=router.encoder.fingerprint,
            features=features_hash(to_bytes(vector)),
            settings="s",
            facts=QueryFacts(),
        )
        records.append(
            answered(
                name,
                i,
                decision.model_copy(update=update | {"expert": expert}),
                at=1000.0 + i,
                inputs=inputs,
                text=text + end if keeps_text else None,
                text_hash=text,
                embedding=to_bytes(vector) if keeps_vectors else None,
            )
        )
        if is_plant:
            value = 1.0 if expert == "right" else 0.0
            said.append({"decision_id": name, "kind": "thumb", "value": value, "at": 2000.0 + i, "key_id": ""})
    store.write_decisions(records)
    with store.transaction("write feedback") as connection:
        connection.execute(store.insert(FEEDBACK), said)
    store.close()


def proposals(folder: Path, tmp_path: Path, **keeps: bool) -> Proposals:
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    log_traffic(folder, url, **keeps)
    return propose(ProposeRequest(folder / "experts.yaml", folder / "data" / "routers", url, min_size=15))


def test_the_topic_is_proposed_with_what_it_could_win(trained: Path, tmp_path: Path) -> None:
    found = proposals(trained, tmp_path)
    (new,) = found.new
    assert (found.n_decisions, found.n_uncertain) == (132, 72)
    assert new.n >= 60
    assert new.n == 2 * new.n_distinct
    assert new.share == pytest.approx(new.n / 132)
    assert new.mean_reward == pytest.approx(0.5, abs=0.1)
    assert (new.gain.expert, new.gain.value) == ("right", pytest.approx(0.5, abs=0.1))
    assert new.gain.low > 0
    assert set(new.name.split("-")) & {"houseplant", "terrarium"}
    assert found.dead == ()


def test_embeddings_are_enough(trained: Path, tmp_path: Path) -> None:
    (new,) = proposals(trained, tmp_path, keeps_text=False).new
    assert new.name == "topic-1"
    assert new.n >= 60


def test_texts_are_enough(trained: Path, tmp_path: Path) -> None:
    assert proposals(trained, tmp_path, keeps_vectors=False).new[0].n >= 60


def test_without_either_it_says_so(trained: Path, tmp_path: Path) -> None:
    found = proposals(trained, tmp_path, keeps_text=False, keeps_vectors=False)
    assert found.new == ()
    assert found.left_out == {"neither text nor embedding was kept": 72}


def test_the_commands_write_files_and_change_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    log_traffic(trained, url, end=" \x1b]0;owned\x07\x1b[2J\u202e")
    before = (trained / "experts.yaml").read_bytes(), Registry(trained / "data" / "routers").live()

    def coe(*arguments: str) -> tuple[int, str]:
        shared = ["--data-dir", str(trained / "data")]
        status = run("categories propose", [*arguments, *shared])
        seen = capsys.readouterr()
        return status, seen.out + seen.err

    status, said = coe("--config", str(trained / "experts.yaml"), "--min-size", "15")
    assert status == 0
    assert "right would add +0.5" in said
    assert "houseplant terrarium \\u001b]0;owned\\u0007\\u001b[2J\\u202e" in said  # examples, which drive no terminal
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    out = tmp_path / "proposals"
    assert coe("--config", str(trained / "experts.yaml"), "--min-size", "15", "--out", str(out))[0] == 0
    (query, *others) = read_seed(out)
    assert len(others) >= 29
    written = yaml.safe_load((out / f"{query.category}.yaml").read_text())
    assert list(written["categories"]) == [query.category]
    assert written["evidence"]["gain"]["expert"] == "right"
    status, said = coe("--config", str(trained / "experts.yaml"), "--min-size", "15", "--out", str(out))
    assert status == 1  # nothing is overwritten
    assert "is there already" in said
    assert ((trained / "experts.yaml").read_bytes(), Registry(trained / "data" / "routers").live()) == before


def test_a_dead_category_takes_thousands_of_decisions() -> None:
    assert decisions_to_see(0.001) == 3838
    assert wilson_interval(0 / 3838, 3838)[1] < 0.001 < wilson_interval(0 / 3830, 3830)[1]
    assert wilson_interval(1 / 3838, 3838)[1] > 0.001


def test_a_gain_needs_two_experts_and_is_not_the_best_of_noise() -> None:
    assert best_gain([("a", 1.0)] * 50)[0] is None
    rng = np.random.default_rng(0)
    values = []
    for _ in range(200):
        gain, _ = best_gain([("ab"[i % 2 if i % 4 < 2 else 1 - i % 2], float(rng.random() < 0.5)) for i in range(80)])
        values.append(gain.value)
    assert abs(float(np.mean(values))) < 0.02


def test_without_texts_the_command_says_what_it_lacks(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    log_traffic(trained, url, keeps_text=False)
    shared = ["--config", str(trained / "experts.yaml"), "--data-dir", str(trained / "data")]
    out = tmp_path / "out"
    assert run("categories propose", [*shared, "--min-size", "15", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "new: topic-1: " in said
    assert "no example: the log keeps no text (log.privacy)" in said
    assert "The log keeps no text, so write queries for it yourself" in (out / "topic-1.yaml").read_text()


def test_a_category_that_is_not_asked_for_is_a_note_to_remove_it(tmp_path: Path) -> None:
    counts = {"n_decisions": 9000, "n_uncertain": 0, "n_far": 0, "left_out": {}, "dead_needs": 3838}
    dead = DeadCategory(name="shell", n=1, high=0.0006)
    found = Proposals(router_version="r", new=(), dead=(dead,), **counts)
    url = f"sqlite:///{tmp_path / 'coe.db'}"
    Database(url).close()
    (path,) = write_proposals(tmp_path / "out", found, url)
    assert path.name == "remove-shell.yaml"
    assert yaml.safe_load(path.read_text())["remove"] == "shell"


def test_the_shipped_composition_keeps_no_text_and_what_the_loop_learns_from() -> None:
    for path in (ROOT / "experts.yaml", ROOT / "deploy" / "experts.gpu.yaml"):
        log = load_config(path).log
        assert (log.privacy, log.embeddings) == (PrivacyLevel.HASH, True), path
    assert (LogConfig().privacy, LogConfig().embeddings) == (PrivacyLevel.HASH, True)


def test_texts_that_differ_only_in_case_and_signs_are_one_query() -> None:
    assert distinct(["A b", "a B!", "c"]) == ["A b", "c"]

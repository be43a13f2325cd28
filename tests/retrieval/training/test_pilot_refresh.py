"""Refreshing the pilot library from exported stores: hashing experts, and an export that writes what a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from coe.base.errors import ArtifactError, DataError
from coe.retrieval.routing.pilot_library import (
    MANIFEST_FILE,
    PilotLibrary,
    RoutingSettings,
    load_library,
    save_library,
    weights_file,
)
from coe.retrieval.training import pilot_refresh as refresh
from coe.retrieval.training.build_library import with_settings
from coe.retrieval.training.pilot_refresh import (
    MIN_DEV,
    MIN_TRAIN,
    PilotRefresh,
    RefreshRequest,
    paired_mean,
    refresh_pilots,
    refused,
)
from coe.router.config.retrieval import RetrievalConfig
from coe.router.encoders.hashing import HashingEncoder
from coe.router.types import FloatArray, Verdict
from coe.training.retrain_lock import LockLostError
from tests.retrieval.training.collection_files import SUBJECTS

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HARBOUR = 0
"""The document that the expert `harbour` finds, whatever is asked."""

EXPERTS = {
    "words": {"kind": "bm25"},
    "harbour": {
        "kind": "encoder",
        "encoder": "hashing",
        "query_prefix": "harbour " * 20,
        "shares_documents": True,
    },
}


def own(number: int) -> int:
    """The document that a query names: base finds it."""
    return number % len(SUBJECTS)


def harbour(number: int) -> int:
    return HARBOUR


def write_store(
    folder: Path,
    train: int = 2 * MIN_TRAIN,
    dev: int = 2 * MIN_DEV,
    *,
    learned: Callable[[int], int] = own,
    judged: Callable[[int], int] = own,
) -> None:
    """A collection of a document per subject. Queries name one; which is relevant, a function of their number says."""
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "text": f"all about the {subject}"} for i, subject in enumerate(SUBJECTS)]
    asks = [(split, i) for split, count in (("train", train), ("dev", dev)) for i in range(count)]
    queries = [{"_id": f"{split}-{i}", "text": f"{split} {i}: the {SUBJECTS[own(i)]}"} for split, i in asks]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, relevant in (("train", learned), ("dev", judged)):
        rows = [f"{split}-{i}\td{relevant(i)}\t1" for name, i in asks if name == split]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


class Stores:
    """Exports: a writer per store; the tests change it."""

    def __init__(self, **stores: Callable[[Path], None]) -> None:
        self.stores = dict(stores)
        self.left_out: Mapping[str, int] = {}

    def __call__(self, folder: Path) -> Mapping[str, int]:
        for name, write in self.stores.items():
            write(folder / name)
        return self.left_out


def section(**changes: object) -> RetrievalConfig:
    values = {"encoder": {"kind": "hashing"}, "experts": EXPERTS, "pilots": "pilots"}
    return RetrievalConfig.model_validate(values | changes)


def run(root: Path, stores: Stores, *, is_dry_run: bool = False, **changes: object) -> PilotRefresh:
    request = RefreshRequest(section(**changes), root, stores, is_dry_run=is_dry_run)
    result = refresh_pilots(request, now=NOW)
    assert result is not None
    return result


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


def made(root: Path) -> PilotLibrary:
    return load_library(root / "pilots")


def test_a_library_is_made_where_there_is_none(tmp_path: Path) -> None:
    stores = Stores(vs_a=write_store, vs_b=lambda folder: write_store(folder, 3, 0))
    stores.left_out = {"searches without text": 2}
    found = run(tmp_path, stores)
    assert (found.verdict, found.is_promoted) == (Verdict.PROMOTE, True), found.reason
    assert (found.stores, found.n_train, found.n_dev) == (2, 43, 20)
    assert found.dropped == {"searches without text": 2}
    assert (found.old, found.new) == (None, made(tmp_path).manifest.version)
    assert found.after >= found.before
    assert made(tmp_path).manifest.data_sets == ("vs_a", "vs_b")
    assert made(tmp_path).manifest.settings == RoutingSettings()


def test_the_library_learns_whom_people_find_right(tmp_path: Path) -> None:
    """Everyone wants the harbour, which base does not find: the library sends them to the expert that does."""
    stores = Stores(vs_a=lambda folder: write_store(folder, learned=harbour, judged=harbour))
    found = run(tmp_path, stores)
    assert found.after == pytest.approx(1.0)
    assert found.before < 0.8


def test_what_was_there_stays_and_a_store_has_todays_queries(tmp_path: Path) -> None:
    stores = Stores(by_hand=lambda folder: write_store(folder, 30, 5), vs_a=write_store)
    run(tmp_path, stores)
    tuned = with_settings(made(tmp_path), RoutingSettings(temperature=0.08, prior_mass=0.3, margin=0.01))
    save_library(tuned, tmp_path / "pilots")
    del stores.stores["by_hand"]

    def later(folder: Path) -> None:
        """Two searches more, and the first one's user was erased."""
        write_store(folder, 42, 10)
        qrels = folder / "qrels" / "train.tsv"
        qrels.write_text(qrels.read_text().replace("train-0\td0\t1\n", ""))

    stores.stores["vs_a"] = later
    found = run(tmp_path, stores)
    assert found.is_promoted, found.reason
    new = made(tmp_path)
    assert (found.old, found.new) == (tuned.manifest.version, new.manifest.version)
    assert found.old != found.new
    assert new.manifest.settings == tuned.manifest.settings
    assert new.manifest.data_sets == ("by_hand", "vs_a")
    count = [int((new.data_set == number).sum()) for number in range(2)]
    assert count == [30, 41]
    old_rows = tuned.data_set == 0
    kept = [arm for arm in tuned.arms if arm.learned_on != "vs_a"]
    before, after = ([each.arms.index(arm) for arm in kept] for each in (tuned, new))
    np.testing.assert_array_equal(new.scores[new.data_set == 0][:, after], tuned.scores[old_rows][:, before])
    np.testing.assert_array_equal(new.keys[new.data_set == 0], tuned.keys[old_rows])
    gone = set(tuned.keys.tolist()) - set(new.keys.tolist())
    assert len(gone) == 1


def test_nothing_new_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores(vs_a=write_store)
    run(tmp_path, stores)
    before = files(tmp_path / "pilots")
    with monkeypatch.context() as patch:
        patch.delattr(refresh, "label_collections")
        again = run(tmp_path, stores)
    assert again.reason == "declined: the library holds every query already"
    assert files(tmp_path / "pilots") == before
    more = run(tmp_path, stores, experts=EXPERTS | {"exact": {"kind": "bm25", "language": "none"}})
    assert more.is_promoted, "a new expert is measured on the queries that are there"
    assert made(tmp_path).measured.all()


def test_documents_are_encoded_once_and_forgotten_with_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = HashingEncoder.encode

    def counted(encoder: HashingEncoder, texts: Sequence[str]) -> FloatArray:
        encoded.extend(text for text in texts if text.startswith("all about"))
        return encode(encoder, texts)

    monkeypatch.setattr(HashingEncoder, "encode", counted)
    stores = Stores(vs_a=write_store)
    memory = tmp_path / "memory"

    def refreshed(*, is_dry_run: bool = False) -> None:
        refresh_pilots(RefreshRequest(section(), tmp_path, stores, is_dry_run, memory), now=NOW)

    refreshed(is_dry_run=True)
    assert not memory.exists()
    assert len(encoded) == len(SUBJECTS)
    refreshed()
    assert len(encoded) == 2 * len(SUBJECTS)
    stores.stores = {"vs_b": lambda folder: write_store(folder, 50)}
    refreshed()
    assert len(encoded) == 2 * len(SUBJECTS), "the same texts in another store"

    def other_texts(folder: Path) -> None:
        write_store(folder)
        corpus = folder / "corpus.jsonl"
        corpus.write_text(corpus.read_text().replace("all about", "all about today's"))

    stores.stores = {"vs_c": other_texts}
    refreshed()
    stores.stores = {"vs_d": write_store}
    refreshed()
    assert len(encoded) == 4 * len(SUBJECTS), "what the refresh before did not use was forgotten"
    assert sorted(file.name for file in memory.rglob("*") if file.is_file()) == ["embeddings.db"]


def test_a_library_that_serves_held_out_queries_worse_is_declined(tmp_path: Path) -> None:
    """Train queries all want the harbour, the held-out ones what they name: believing the first loses the second."""
    run(tmp_path, Stores(vs_a=write_store))
    before = files(tmp_path / "pilots")
    stores = Stores(vs_a=lambda folder: write_store(folder, 60, learned=harbour))
    found = run(tmp_path, stores)
    assert (found.verdict, found.is_promoted) == (Verdict.DECLINE, False)
    assert "mean nDCG@10 of 20 held-out queries would fall from 1.000 to" in found.reason
    assert files(tmp_path / "pilots") == before


def test_a_small_fall_on_many_held_out_queries_is_a_fall(tmp_path: Path) -> None:
    """Five of nine held-out queries want the harbour, and the refreshed library sends nobody there any more."""

    def mostly_harbour(number: int) -> int:
        return own(number) if number % 9 < 4 else HARBOUR

    stores = Stores(vs_a=lambda folder: write_store(folder, 60, 180, learned=harbour, judged=mostly_harbour))
    run(tmp_path, stores)
    before = files(tmp_path / "pilots")
    stores.stores["vs_a"] = lambda folder: write_store(folder, 61, 180, judged=mostly_harbour)
    found = run(tmp_path, stores)
    assert 0.03 < found.before - found.after < 0.1
    assert not found.is_promoted, found.reason
    assert files(tmp_path / "pilots") == before


@pytest.mark.parametrize(
    ("train", "dev", "more"), [(MIN_TRAIN - 4, MIN_DEV, 5), (MIN_TRAIN, MIN_DEV - 2, 10), (MIN_TRAIN - 8, 0, 50)]
)
def test_too_few_queries_say_how_many_more(tmp_path: Path, train: int, dev: int, more: int) -> None:
    found = run(tmp_path, Stores(vs_a=lambda folder: write_store(folder, train, dev)))
    assert found.verdict is Verdict.NEED_MORE
    assert (found.reason, found.more_searches) == (f"need about {more} more searches with feedback", more)
    assert (found.n_train, found.n_dev) == (train, dev)
    assert not (tmp_path / "pilots").exists()


def test_no_store_with_feedback_needs_more(tmp_path: Path) -> None:
    assert run(tmp_path, Stores()).more_searches == 50


def test_queries_beyond_those_of_one_store_are_counted(tmp_path: Path) -> None:
    found = run(tmp_path, Stores(vs_a=lambda folder: write_store(folder, 210)))
    assert found.n_train == 200
    assert found.dropped == {"queries beyond 200 of one store": 10}


def test_a_dry_run_compares_and_writes_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, Stores(vs_a=write_store), is_dry_run=True)
    assert (found.verdict, found.is_promoted) == (Verdict.PROMOTE, False)
    assert found.reason == "promote (dry run: nothing was written)"
    assert found.new is not None
    assert list(tmp_path.iterdir()) == []


def test_a_changed_expert_is_said_and_the_library_stays(tmp_path: Path) -> None:
    stores = Stores(vs_a=write_store)
    run(tmp_path, stores)
    before = files(tmp_path / "pilots")
    stores.stores["vs_a"] = lambda folder: write_store(folder, 50)
    changed = EXPERTS | {"words": {"kind": "bm25", "k1": 0.5}}
    with pytest.raises(DataError, match="'words' is not the one that the pilot library measured; use --rebuild"):
        run(tmp_path, stores, experts=changed)
    with pytest.raises(DataError, match="has an expert 'harbour' that is not there now"):
        run(tmp_path, stores, experts={"words": {"kind": "bm25"}})
    with pytest.raises(DataError, match="expert 'base' is not the one"):
        run(tmp_path, stores, encoder={"kind": "hashing", "dim": 128}, experts={"words": {"kind": "bm25"}})
    assert files(tmp_path / "pilots") == before


def test_a_damaged_library_is_said_and_not_overwritten(tmp_path: Path) -> None:
    stores = Stores(vs_a=write_store)
    run(tmp_path, stores)
    weights_file(tmp_path / "pilots", made(tmp_path).manifest).write_bytes(b"half")
    before = files(tmp_path / "pilots")
    with pytest.raises(ArtifactError, match="SHA-256 is"):
        run(tmp_path, stores)
    (tmp_path / "pilots" / MANIFEST_FILE).write_text("{")
    with pytest.raises(ArtifactError, match="is not the manifest of a pilot library"):
        run(tmp_path, stores)
    assert files(tmp_path / "pilots") == before | {MANIFEST_FILE: b"{"}


def test_whoever_lost_the_turn_or_came_second_writes_nothing(tmp_path: Path) -> None:
    request = RefreshRequest(section(), tmp_path, Stores(vs_a=write_store))

    @contextmanager
    def lost() -> Iterator[None]:
        raise LockLostError("turn 1 to retrain is over")
        yield

    with pytest.raises(LockLostError):
        refresh_pilots(request, now=NOW, guard=lost)
    assert not (tmp_path / "pilots").exists()

    run(tmp_path, Stores(vs_b=write_store))
    other = made(tmp_path)

    @contextmanager
    def interrupted() -> Iterator[None]:
        save_library(with_settings(other, RoutingSettings(margin=0.3)), tmp_path / "pilots")
        yield

    found = refresh_pilots(request, now=NOW, guard=interrupted)
    written = made(tmp_path)
    assert found.reason == f"declined: {written.manifest.version} was written during the comparison"
    assert written.manifest.settings.margin == 0.3
    assert not found.is_promoted


def test_a_section_without_a_library_has_nothing_to_refresh(tmp_path: Path) -> None:
    def never(folder: Path) -> Mapping[str, int]:
        raise AssertionError

    assert refresh_pilots(RefreshRequest(section(pilots=None), tmp_path, never), now=NOW) is None


def compared(differences: list[float]) -> PilotRefresh | None:
    """The verdict on a refresh that changes nDCG@10 of held-out queries by so much each."""
    found = PilotRefresh(Verdict.NEED_MORE, "", n_dev=len(differences), difference=paired_mean(np.array(differences)))
    return refused(found, 0.5, 0.5 + float(np.mean(differences)))


def test_an_interval_decides_and_not_the_mean() -> None:
    """Nine queries of which two gain and one loses are too few to say that nothing is lost; many times nine are not."""
    few = [0.4, -0.3, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    found = compared(few)
    assert found.verdict is Verdict.NEED_MORE
    assert 100 < found.more_searches < 1000
    assert "too uncertain for the margin 0.02" in found.reason
    assert compared(few * (1 + found.more_searches * 2 // 9)) is None
    fell = compared([-0.05] * 20)
    assert fell.verdict is Verdict.DECLINE


def test_a_paired_mean_has_students_interval() -> None:
    """Five values of mean 2 and standard deviation 1.581: 2 +- 2.776 x 0.7071."""
    found = paired_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0])).interval
    assert (found.low, found.high) == pytest.approx((2 - 1.9632, 2 + 1.9632), abs=1e-3)

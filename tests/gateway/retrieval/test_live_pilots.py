"""A pilot library that is written while the gateway serves: taken over whole, or refused while the old one goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coe.base.errors import ArtifactError
from coe.retrieval.routing.pilot_library import (
    MANIFEST_FILE,
    PilotLibrary,
    Pilots,
    make_library,
    save_library,
    weights_file,
)
from coe.retrieval.service import open_retrieval
from coe.retrieval.types import BASE, RetrievalExpert
from tests.gateway.retrieval.serving import ARMS, Serving, retrieval_config, serving
from tests.waiting import until

TEXTS = {"cats.txt": "The cat purrs.", "tax.txt": "The tax office opens at nine."}
ASKS = ["when does the tax office open", "which animal purrs", "zebra"]


def favouring(experts: Mapping[str, RetrievalExpert], name: str, base: str | None = None) -> PilotLibrary:
    """A library whose every query one expert served best. `base` is the fingerprint of the encoder it was made on."""
    base_expert: Any = experts[BASE]
    scores = np.tile([0.9 if arm.members == (name,) else 0.5 for arm in ARMS], (len(ASKS), 1))
    embeddings = base_expert.encode_queries(ASKS)
    pilots = Pilots(
        embeddings=embeddings,
        scores=scores.astype(np.float32),
        measured=np.ones(scores.shape, dtype=bool),
        data_set=np.zeros(len(ASKS), dtype=np.int64),
        keys=np.arange(len(ASKS)),
        located=embeddings[:0],
        located_in=np.zeros(0, dtype=np.int64),
    )
    fingerprints = {each: expert.fingerprint for each, expert in experts.items()}
    fingerprints[BASE] = base or base_expert.fingerprint
    return make_library(pilots, ARMS, ("asks",), fingerprints, created_at="2026-01-01T00:00:00+00:00")


def opened(folder: Path) -> Any:
    config = retrieval_config(pilots=str(folder / "pilots"))
    return {"config": config, "service": open_retrieval(config, folder, {})}


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "is refused" in record.getMessage()]


async def version_of_search(running: Serving, store_id: str) -> str:
    status, answer, headers = await running.search(store_id, ASKS[0])
    assert status == 200, answer
    record = running.store.get_decision(headers["x-coe-decision-id"])  # others search at the same time
    assert record.decision.router_version == headers["x-coe-router-version"]
    return str(headers["x-coe-router-version"])


async def test_a_library_that_is_not_there_yet_is_taken_over_when_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        options = opened(tmp_path)
    assert f"there is no pilot library at {tmp_path / 'pilots'} yet" in caplog.text
    async with serving(tmp_path / "data", **options) as running:
        store_id = await running.store_of(TEXTS)
        assert await version_of_search(running, store_id) == "none"
        library = favouring(running.service.routing.experts, "words")
        save_library(library, tmp_path / "pilots")
        await until(lambda: running.service.pilots.loads == 1)  # by its own polling
        assert f"{library.manifest.version} was made without the fusion by which base serves now" in caplog.text
        assert await version_of_search(running, store_id) == library.manifest.version
        assert running.log.records[-1].served_expert == "words"
        _, embedded, _ = await running.post("/embeddings", {"model": "auto", "input": ASKS[0]})
        assert embedded["data"][0]["expert"] == BASE, "words has no vectors in base's space"
        async with running.http.get(f"{running.url.removesuffix('/v1')}/metrics") as response:
            text = await response.text()
        assert "coe_pilots_loads_total 1.0" in text
        assert "coe_pilots_refusals_total 0.0" in text


async def test_what_cannot_be_used_is_logged_once_and_the_old_library_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "pilots"
    options = opened(tmp_path)
    async with serving(tmp_path / "data", **options) as running:
        store_id, pilots = await running.store_of(TEXTS), running.service.pilots
        await pilots.aclose()  # the test says when to look
        experts = running.service.routing.experts
        good = favouring(experts, "words")
        save_library(good, folder)
        await pilots.look()

        (folder / MANIFEST_FILE).write_text("{")
        for _ in range(3):
            await pilots.look()
        assert len(refused(caplog)) == pilots.refusals == 1
        assert f"{good.manifest.version} keeps serving" in refused(caplog)[0]
        assert await version_of_search(running, store_id) == good.manifest.version

        save_library(favouring(experts, "words", base="another" * 4), folder)
        await pilots.look()
        assert "was made on base another" in refused(caplog)[1]
        empty = favouring(experts, "words")
        save_library(
            make_library(
                Pilots(**{each.name: getattr(empty, each.name)[:0] for each in fields(Pilots)}),
                ARMS,
                (),
                empty.manifest.expert_fingerprints,
                created_at="",
            ),
            folder,
        )
        await pilots.look()
        assert pilots.refusals == 3, "a library that cannot decide counts as none"
        assert await version_of_search(running, store_id) == good.manifest.version

        better = favouring(experts, "animals")
        save_library(better, folder)
        await pilots.look()
        assert pilots.last_error is None
        assert await version_of_search(running, store_id) == better.manifest.version


async def test_a_library_that_is_copied_file_by_file_is_taken_over_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """People copy folders; the manifest may come first and the arrays in pieces."""
    folder = tmp_path / "pilots"
    async with serving(tmp_path / "data", **opened(tmp_path)) as running:
        pilots = running.service.pilots
        await pilots.aclose()
        library = favouring(running.service.routing.experts, "words")
        save_library(library, tmp_path / "made")
        source = weights_file(tmp_path / "made", library.manifest)
        folder.mkdir()
        (folder / MANIFEST_FILE).write_bytes((tmp_path / "made" / MANIFEST_FILE).read_bytes())
        for size in (None, 0, 100, 1000):
            if size is not None:
                (folder / source.name).write_bytes(source.read_bytes()[:size])
            await pilots.look()
        assert len(refused(caplog)) == pilots.refusals == 1
        (folder / source.name).write_bytes(source.read_bytes())
        await pilots.look()
        assert pilots.version == library.manifest.version


async def test_searches_during_changes_name_one_version_each_and_its_expert(tmp_path: Path) -> None:
    folder = tmp_path / "pilots"
    async with serving(tmp_path / "data", **opened(tmp_path)) as running:
        store_id, pilots = await running.store_of(TEXTS), running.service.pilots
        libraries = {name: favouring(running.service.routing.experts, name) for name in ("words", "animals")}
        expert_of = {library.manifest.version: name for name, library in libraries.items()}
        save_library(libraries["words"], folder)
        await until(lambda: pilots.version != "none")
        is_done = asyncio.Event()

        async def change() -> None:
            for number in range(10):
                save_library(libraries[("animals", "words")[number % 2]], folder)
                await pilots.look()
                await version_of_search(running, store_id)
            is_done.set()

        async def search() -> None:
            while not is_done.is_set():
                status, answer, headers = await running.search(store_id, ASKS)
                assert status == 200, answer
                experts = {each["expert"] for each in answer["decisions"]}
                assert experts == {expert_of[headers["x-coe-router-version"]]}

        await asyncio.gather(change(), *(search() for _ in range(4)))
        assert pilots.refusals == 0
        for record in running.log.records:
            assert record.served_expert == expert_of[record.decision.router_version]


def test_a_damaged_library_at_the_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pilots").mkdir()
    (tmp_path / "pilots" / MANIFEST_FILE).write_text("{}")
    with pytest.raises(ArtifactError, match="is not the manifest of a pilot library"):
        opened(tmp_path)

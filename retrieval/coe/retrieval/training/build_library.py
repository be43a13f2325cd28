"""The build of a pilot library, and its extension by an expert or a data set. Existing entries stay unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from coe.base.errors import DataError
from coe.retrieval.routing.pilot_library import PilotLibrary, Pilots, RoutingSettings, make_library, versioned
from coe.retrieval.training.labels import Labelled
from coe.retrieval.types import Arm
from coe.router.types import BoolArray, FloatArray, IntArray


def extend_library(
    library: PilotLibrary | None,
    labelled: Sequence[Labelled],
    arms: Sequence[Arm],
    expert_fingerprints: Mapping[str, str],
    *,
    created_at: str,
    located: Mapping[str, FloatArray] | None = None,
) -> PilotLibrary:
    """Return the library with further arms and labelled queries; earlier measurements keep their values and places.

    Args:
        library: None for a new one.
        labelled: scores over `arms`, of old and new queries.
        arms: arms of the library that were measured again, and new ones, in any order.
        located: (k, d) base embeddings of unlabelled queries by data set, which replace the library's.

    Raises:
        DataError: there is no labelled query.
    """
    if library is None and not any(map(len, labelled)):
        raise DataError("there is no labelled query to make pilots from; a collection needs qrels/train.tsv")
    old = None if library is None else library.manifest
    held = nothing(labelled[0].embeddings.shape[1]) if library is None else library
    columns = {arm: number for number, arm in enumerate(old.arms if old else ())}
    for arm in arms:
        columns.setdefault(arm, len(columns))
    names = list(dict.fromkeys([*(old.data_sets if old else ()), *(part.collection for part in labelled)]))
    known = set(held.keys.tolist())
    fresh = [(part, i) for part in labelled for i, key in enumerate(part.keys.tolist()) if key not in known]
    keys = np.concatenate([held.keys, np.array([int(part.keys[i]) for part, i in fresh], dtype=np.int64)])
    scores, measured = merged_scores(held, labelled, keys, [columns[arm] for arm in arms], len(columns))
    where = (located_by_name(library) if library else {}) | dict(located or {})
    places, located_in = located_rows(names, where, held.embeddings.shape[1])
    pilots = Pilots(
        embeddings=np.concatenate([held.embeddings, *(part.embeddings[i : i + 1] for part, i in fresh)]),
        scores=scores,
        measured=measured,
        data_set=np.concatenate(
            [held.data_set, np.array([names.index(part.collection) for part, _ in fresh], dtype=np.int64)]
        ),
        keys=keys,
        located=places,
        located_in=located_in,
    )
    return make_library(
        pilots,
        tuple(columns),
        names,
        {**expert_fingerprints, **(old.expert_fingerprints if old else {})},
        created_at=created_at,
        settings=old.settings if old else None,
        single_settings=old.single_settings if old else None,
    )


def nothing(dim: int) -> Pilots:
    """Return pilots of no query and no arm."""
    numbers, vectors = np.zeros(0, dtype=np.int64), np.zeros((0, dim), dtype=np.float32)
    scores = np.zeros((0, 0), dtype=np.float32)
    return Pilots(vectors, scores, scores > 0, numbers, numbers, vectors, numbers)


def merged_scores(
    library: Pilots, labelled: Sequence[Labelled], keys: IntArray, columns: Sequence[int], width: int
) -> tuple[FloatArray, BoolArray]:
    """Return scores and measured marks (n, `width`) of queries `keys` (n,); the library's values come first and stay.

    Args:
        columns: columns of the arms of `labelled`.
    """
    scores, measured = np.zeros((len(keys), width), np.float32), np.zeros((len(keys), width), bool)
    count, n_arms = library.scores.shape
    scores[:count, :n_arms], measured[:count, :n_arms] = library.scores, library.measured
    row_of = {key: row for row, key in enumerate(keys.tolist())}
    for part in labelled:
        for i, key in enumerate(part.keys.tolist()):
            for column, value in zip(columns, part.scores[i], strict=True):
                if not measured[row_of[key], column]:
                    scores[row_of[key], column], measured[row_of[key], column] = value, True
    return scores, measured


def located_rows(names: Sequence[str], located: Mapping[str, FloatArray], dim: int) -> tuple[FloatArray, IntArray]:
    """Return `located` (k, d) and `located_in` (k,) of the data sets among `names`."""
    known = [name for name in names if name in located]
    places = np.array([names.index(name) for name in known], dtype=np.int64)
    rows = np.concatenate([np.empty((0, dim)), *(located[name] for name in known)]).astype(np.float32)
    return rows, np.repeat(places, [len(located[name]) for name in known])


def located_by_name(library: PilotLibrary) -> dict[str, FloatArray]:
    names = library.manifest.data_sets
    return {names[place]: library.located[library.located_in == place] for place in np.unique(library.located_in)}


def require_same_experts(library: PilotLibrary, expert_fingerprints: Mapping[str, str]) -> None:
    """Check that every expert, and the base, is the one that the library measured.

    Raises:
        DataError: an expert is missing or has changed.
    """
    for name, fingerprint in library.manifest.expert_fingerprints.items():
        found = expert_fingerprints.get(name)
        if found is None:
            raise DataError(
                f"the pilot library has an expert '{name}' that is not there now; bring it back, or use --rebuild"
            )
        if found != fingerprint:
            raise DataError(f"expert '{name}' is not the one that the pilot library measured; use --rebuild")


def with_settings(
    library: PilotLibrary, settings: RoutingSettings, single_settings: RoutingSettings | None = None
) -> PilotLibrary:
    """Return the library with other routing settings, under its new version. None: the same for both modes."""
    changed = library.manifest.model_copy(update={"settings": settings, "single_settings": single_settings})
    return replace(library, manifest=versioned(changed))


def without_data_set(library: PilotLibrary, name: str) -> PilotLibrary:
    """Return the library without a data set's queries and what they taught, but with its expert's arms."""
    if name not in library.manifest.data_sets:
        return library
    place = library.manifest.data_sets.index(name)
    rows, others = library.data_set != place, library.located_in != place
    columns = [column for column, arm in enumerate(library.arms) if arm.learned_on != name]
    return replace(
        library,
        manifest=library.manifest.model_copy(update={"arms": tuple(library.arms[column] for column in columns)}),
        embeddings=library.embeddings[rows],
        scores=library.scores[rows][:, columns],
        measured=library.measured[rows][:, columns],
        data_set=library.data_set[rows],
        keys=library.keys[rows],
        located=library.located[others],
        located_in=library.located_in[others],
    )

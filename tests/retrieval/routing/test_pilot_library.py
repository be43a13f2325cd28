from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coe.base.errors import ArtifactError
from coe.retrieval.routing.pilot_library import (
    MANIFEST_FILE,
    RoutingSettings,
    load_library,
    save_library,
    weights_file,
)
from tests.retrieval.pilot_data import small_library


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    library = small_library()
    save_library(library, tmp_path)
    found = load_library(tmp_path)
    assert found.manifest == library.manifest
    for name in ("embeddings", "scores", "measured", "data_set", "keys", "located", "located_in"):
        np.testing.assert_array_equal(getattr(found, name), getattr(library, name))
    assert sorted(tmp_path.iterdir()) == [tmp_path / MANIFEST_FILE, weights_file(tmp_path, library.manifest)]


@pytest.mark.parametrize("writes", range(4))
def test_a_writer_that_is_killed_leaves_a_whole_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Killed after 0 to 3 of its changes: two files put in place, one removed."""
    old, new = small_library(), small_library(per_domain=9)
    save_library(old, tmp_path)
    left = iter(range(writes))

    def until_killed(change: Callable[..., object]) -> Callable[..., object]:
        def changed(*arguments: Any, **options: Any) -> object:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return changed

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, until_killed(getattr(Path, name)))
        with pytest.raises(KeyboardInterrupt) if writes < 3 else nullcontext():
            save_library(new, tmp_path)
    assert load_library(tmp_path).manifest == (old if writes < 2 else new).manifest
    save_library(new, tmp_path)
    assert load_library(tmp_path).manifest == new.manifest
    assert len(list(tmp_path.iterdir())) == 2


def test_the_version_follows_the_settings_and_the_content() -> None:
    first = small_library().manifest.version
    assert first == small_library().manifest.version
    assert first != small_library(RoutingSettings(margin=0.1)).manifest.version
    assert first != small_library(per_domain=9).manifest.version


def test_a_changed_byte_of_the_arrays_is_refused(tmp_path: Path) -> None:
    save_library(small_library(), tmp_path)
    file = weights_file(tmp_path, small_library().manifest)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="SHA-256"):
        load_library(tmp_path)


def test_a_changed_setting_is_refused(tmp_path: Path) -> None:
    save_library(small_library(), tmp_path)
    plain = json.loads((tmp_path / MANIFEST_FILE).read_text())
    plain["settings"]["margin"] = 0.5
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(plain))
    with pytest.raises(ArtifactError, match="it was changed"):
        load_library(tmp_path)


def test_a_place_of_no_data_set_is_refused(tmp_path: Path) -> None:
    save_library(small_library(located_in=2), tmp_path)
    with pytest.raises(ArtifactError, match="'located_in' must hold 0 to 1"):
        load_library(tmp_path)


def test_no_library_and_no_json_are_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_library(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text("{")
    with pytest.raises(ArtifactError, match="not the manifest of a pilot library"):
        load_library(tmp_path)

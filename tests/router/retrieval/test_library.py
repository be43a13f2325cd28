from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.errors import ArtifactError
from router.retrieval.library import MANIFEST_FILE, WEIGHTS_FILE, RoutingSettings, load_library, save_library
from tests.router.retrieval.pilot_data import small_library


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    library = small_library()
    save_library(library, tmp_path)
    found = load_library(tmp_path)
    assert found.manifest == library.manifest
    for name in ("embeddings", "scores", "measured", "data_set", "keys"):
        np.testing.assert_array_equal(getattr(found, name), getattr(library, name))
    assert sorted(file.name for file in tmp_path.iterdir()) == [MANIFEST_FILE, WEIGHTS_FILE]


def test_the_version_follows_the_settings_and_the_content() -> None:
    first = small_library().manifest.version
    assert first == small_library().manifest.version
    assert first != small_library(RoutingSettings(margin=0.1)).manifest.version
    assert first != small_library(per_domain=9).manifest.version


def test_a_changed_byte_of_the_arrays_is_refused(tmp_path: Path) -> None:
    save_library(small_library(), tmp_path)
    content = bytearray((tmp_path / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / WEIGHTS_FILE).write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="SHA-256"):
        load_library(tmp_path)


def test_a_changed_setting_is_refused(tmp_path: Path) -> None:
    save_library(small_library(), tmp_path)
    plain = json.loads((tmp_path / MANIFEST_FILE).read_text())
    plain["settings"]["margin"] = 0.5
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(plain))
    with pytest.raises(ArtifactError, match="it was changed"):
        load_library(tmp_path)


def test_no_library_and_no_json_are_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_library(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text("{")
    with pytest.raises(ArtifactError, match="not the manifest of a pilot library"):
        load_library(tmp_path)

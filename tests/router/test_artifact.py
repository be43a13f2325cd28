import json
import pickle

import numpy as np
import pytest

from coe.base.errors import ArtifactError
from coe.router.model_files.artifact import load_artifact, require_array, save_artifact

MANIFEST = {
    "created_at": "2026-01-01T00:00:00+00:00",
    "encoder": {"kind": "hashing", "options": {}, "fingerprint": "f", "dim": 4},
    "classifier": {"kind": "logistic", "options": {}},
    "scorer": {"kind": "map", "options": {}},
    "categories": ("code", "facts"),
    "experts": ("a",),
    "temperature": 1.0,
}
ARRAYS = {"classifier.weights": np.arange(8, dtype=np.float32).reshape(4, 2), "map.mass": np.ones(3, np.float32)}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / save_artifact(tmp_path, MANIFEST, ARRAYS).manifest.version


def test_round_trip(folder):
    loaded = load_artifact(folder)
    assert loaded.manifest.version == folder.name
    assert loaded.part("classifier")["weights"].tolist() == ARRAYS["classifier.weights"].tolist()
    assert set(loaded.part("map")) == {"mass"}


def test_version_is_the_content_not_the_time(tmp_path):
    first = save_artifact(tmp_path, MANIFEST, ARRAYS).manifest.version
    later = save_artifact(tmp_path, MANIFEST | {"created_at": "2027-01-01T00:00:00+00:00"}, ARRAYS).manifest.version
    other = save_artifact(tmp_path, MANIFEST | {"temperature": 1.5}, ARRAYS).manifest.version
    changed = save_artifact(tmp_path, MANIFEST, ARRAYS | {"map.mass": np.zeros(3, np.float32)}).manifest.version
    assert first == later
    assert len({first, other, changed}) == 3


@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_flipped_byte_in_the_weights_is_refused(folder, position):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="SHA-256"):
        load_artifact(folder)


def test_an_edited_manifest_is_refused(folder):
    path = folder / "manifest.json"
    plain = json.loads(path.read_text())
    plain["temperature"] = 2.0
    path.write_text(json.dumps(plain))
    with pytest.raises(ArtifactError, match="it was changed"):
        load_artifact(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 9}'])
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"not a router manifest.* `coe router --back` returns"):
        load_artifact(folder)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
def test_a_damaged_artifact_is_written_anew_and_an_intact_one_kept(folder, tmp_path, name):
    (folder / name).write_bytes(b"{}")
    save_artifact(tmp_path, MANIFEST | {"created_at": "2027-01-01T00:00:00+00:00"}, ARRAYS)
    assert load_artifact(folder).manifest.created_at == "2027-01-01T00:00:00+00:00"
    save_artifact(tmp_path, MANIFEST, ARRAYS)
    assert load_artifact(folder).manifest.created_at == "2027-01-01T00:00:00+00:00"


def test_a_symlink_is_refused(folder, tmp_path):
    real = tmp_path / "elsewhere"
    (folder / "weights.safetensors").rename(real)
    (folder / "weights.safetensors").symlink_to(real)
    with pytest.raises(ArtifactError, match="symbolic link"):
        load_artifact(folder)


def test_a_pickle_is_refused_even_with_a_fitting_hash(tmp_path, monkeypatch):
    import safetensors.numpy

    monkeypatch.setattr(safetensors.numpy, "save", lambda _: pickle.dumps(ARRAYS))
    version = save_artifact(tmp_path, MANIFEST, ARRAYS).manifest.version
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        load_artifact(tmp_path / version)


def test_values_that_are_not_finite_are_refused(tmp_path):
    version = save_artifact(tmp_path, MANIFEST, ARRAYS | {"map.mass": np.array([np.nan], np.float32)}).manifest.version
    with pytest.raises(ArtifactError, match=r"'map.mass' holds values that are not finite"):
        load_artifact(tmp_path / version)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"manifest.json: cannot be read"):
        load_artifact(tmp_path / "none")


def test_require_array_names_the_shape():
    with pytest.raises(ArtifactError, match="'b' is missing; there are: a"):
        require_array({"a": np.zeros(2)}, "b", (2,))
    with pytest.raises(ArtifactError, match=r"shape \(2,\); expected \(3,\)"):
        require_array({"a": np.zeros(2)}, "a", (3,))
    assert require_array({"a": np.zeros((2, 5))}, "a", (2, None)).shape == (2, 5)

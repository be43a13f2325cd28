"""PEFT adapters as llama.cpp files, converted once and kept by content in `<data>/adapters`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from coe.base.errors import MissingWeightsError

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
GGUF_HEADER_BYTES = 64 * 1024
"""Enough of a GGUF file to hold the head counts and sizes that a conversion depends on."""


def converted_adapters(adapters: Mapping[str, Path], base: Path, cache: Path) -> dict[str, Path]:
    """A GGUF LoRA per expert. What was converted before, from the same bytes by the same code, is used again.

    Args:
        adapters: PEFT folder per expert.
        base: the GGUF model they belong to.

    Raises:
        MissingWeightsError: a folder lacks its files.
        ArtifactError: an adapter is damaged or belongs to another base.
    """
    from coe.fleet.lora_gguf import convert_adapter, read_base_shape

    files = {name: cache / f"{content_hash(name, folder, base)}.gguf" for name, folder in adapters.items()}
    lacking = {name: file for name, file in files.items() if not file.exists()}
    if lacking:
        cache.mkdir(parents=True, exist_ok=True)
        shape = read_base_shape(base)
        for name, file in lacking.items():
            convert_adapter(adapters[name], shape, file)
    return files


def content_hash(expert: str, folder: Path, base: Path) -> str:
    """Hash of everything that a conversion depends on: the adapter, the base's header and size, our code."""
    from coe.fleet import lora_gguf

    try:
        digest = hashlib.sha256(adapter_digest(folder).encode())
    except OSError as error:
        raise MissingWeightsError(
            f"experts.{expert}.adapter: {error.filename} cannot be read ({error.strerror})"
        ) from error
    with base.open("rb") as model:
        digest.update(model.read(GGUF_HEADER_BYTES))
    digest.update(str(base.stat().st_size).encode())
    digest.update(Path(lora_gguf.__file__).read_bytes())
    return digest.hexdigest()[:32]


def adapter_digest(folder: Path) -> str:
    """Hex SHA-256 of an adapter's two files. Raises OSError when one cannot be read."""
    digest = hashlib.sha256()
    for file in (folder / CONFIG_FILE, folder / WEIGHTS_FILE):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()

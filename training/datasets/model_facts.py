"""Sizes and prices of experts: from a `models.parquet` beside an outcome table, or from experts.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from base.columns import numbers, read_table, require_amounts, texts
from router.config import CoeConfig
from training.types import ModelFacts

MODELS_FILE = "models.parquet"


def find_models_file(folder: Path) -> Path | None:
    """`models.parquet` in an outcome table's folder or in the one above it."""
    found = [path for path in (folder / MODELS_FILE, folder.resolve().parent / MODELS_FILE) if path.is_file()]
    return found[0] if found else None


def read_models(path: Path) -> dict[str, ModelFacts]:
    """Facts per model. Only the column `model` is required; a size of 0 is unknown, as in experts.yaml.

    Raises:
        DataError: with file, row and column.
    """
    table = read_table(path, ("model",))
    columns = {}
    for name in ("params_active_b", "price_in_per_m", "price_out_per_m"):
        columns[name] = numbers(path, table, name)
        require_amounts(path, name, columns[name])
    known = [[None if np.isnan(value) else float(value) for value in column] for column in columns.values()]
    return {
        model: ModelFacts(active or None, price_in, price_out)
        for model, active, price_in, price_out in zip(texts(path, table, "model"), *known, strict=True)
    }


def facts_of_config(config: CoeConfig) -> dict[str, ModelFacts]:
    """Facts per expert of experts.yaml. A size of 0 there means that it is not hosted here: unknown."""
    return {
        name: ModelFacts(entry.active_b or None, entry.price_in_per_m_usd, entry.price_out_per_m_usd)
        for name, entry in config.experts.items()
    }


def write_models(path: Path, active_params_b: Mapping[str, float]) -> None:
    """Writes sizes in the layout that `read_models` reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"model": list(active_params_b), "params_active_b": list(active_params_b.values())}
    pq.write_table(
        pa.table(columns, schema=pa.schema([("model", pa.string()), ("params_active_b", pa.float64())])), path
    )

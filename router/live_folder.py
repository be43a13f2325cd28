"""The live router of a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.config import CoeConfig
    from router.pipeline import Router


def live_router(config: CoeConfig, data_dir: Path) -> Router:
    """Loads it. Raises ArtifactError when there is none, or its pointer is damaged."""
    from base.errors import ArtifactError
    from router.build import load_router
    from router.live_pointer import LIVE_FILE, ROUTERS_FOLDER, read_pointer

    root = data_dir / ROUTERS_FOLDER
    pointer = read_pointer(root)
    if pointer is None:
        raise ArtifactError(f"{root / LIVE_FILE}: there is no live router yet; `coe up` or `coe train` makes the first")
    return load_router(config, root / pointer.version)

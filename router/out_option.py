"""What `--out` names, checked before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path

from router.errors import ConfigError


def require_folder(out: Path) -> None:
    """Raises ConfigError when `out` is no folder and cannot become one, or nothing can be written in it."""
    for place in (out, *out.absolute().parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"--out {out}: nothing can be written in {place}; name another folder")
            return
        if place.exists() or place.is_symlink():
            raise ConfigError(f"--out {out}: {place} is no folder; name another")


def require_file(out: Path) -> None:
    """Raises ConfigError when `out` is a folder, or cannot be written."""
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file")
    require_folder(out.absolute().parent)
    if out.exists() and not os.access(out, os.W_OK):
        raise ConfigError(f"--out {out}: cannot be written; name another file")

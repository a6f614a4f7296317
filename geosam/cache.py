"""The folder for what can be fetched or made again: weights, features of remote rasters."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """GEOSAM_CACHE if it is set, else geosam's part of the user's cache; it may not exist yet."""
    if chosen := os.environ.get("GEOSAM_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "geosam"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "geosam"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geosam"

"""Where the features of a raster are."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from geosam.cache import cache_folder
from geosam.protocol import Model
from geosam.recipe import choose_bands
from tiles import FeatureStore, Raster, StoreMismatch


def is_store(source: str | Path | FeatureStore) -> bool:
    """Whether a source is a feature store, open or by its path, rather than a raster."""
    return isinstance(source, FeatureStore) or str(source).rstrip("/").endswith(".zarr")


def default_store(
    source: str | Path, model: Model, raster: Raster, bands: Sequence[int] | None = None
) -> Path:
    """Where a raster's features go if nobody says: beside it, else in the user's cache.

    The cache (see `cache_folder`) serves rasters that are remote or lie in a folder that cannot be
    written. Other bands than those that are looked at by default have a store of their own.
    """
    path = Path(source)
    chosen = choose_bands(raster, bands)
    other = "-".join(map(str, dict.fromkeys(chosen) if len(set(chosen)) == 1 else chosen))
    mark = "" if chosen == choose_bands(raster, None) else f".bands-{other}"
    name = f"{path.name}.{model.id}{mark}.features.zarr"
    if path.is_file() and os.access(path.parent, os.W_OK):
        return path.with_name(name)
    cache = cache_folder()
    place = hashlib.sha256(str(source).encode()).hexdigest()[:8]
    return cache / f"{place}-{raster.fingerprint}-{name}"


def exists(path: str | Path) -> bool:
    """Whether something is where a store would be."""
    if "://" in str(path):
        try:
            FeatureStore.open(path)
        except StoreMismatch:
            return False
        return True
    return Path(path).exists()

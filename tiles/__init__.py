"""Cuts rasters into tiles, and keeps what is computed from them. Knows nothing of any model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiles.errors import (
        ProjectionError,
        RasterError,
        StoreDamaged,
        StoreIncomplete,
        StoreMismatch,
        StoreUnreachable,
        StoreUnwritable,
        TilesError,
    )
    from tiles.frame import Frame
    from tiles.grid import Tile, TileGrid
    from tiles.mosaic import write_mosaic
    from tiles.raster import Chip, Raster
    from tiles.store import FeatureStore, Progress
    from tiles.window import Window

# Names are loaded when they are first used: errors alone load no GDAL, which training goes without.
_HOMES = {
    "Chip": "tiles.raster",
    "FeatureStore": "tiles.store",
    "Frame": "tiles.frame",
    "Progress": "tiles.store",
    "ProjectionError": "tiles.errors",
    "Raster": "tiles.raster",
    "RasterError": "tiles.errors",
    "StoreDamaged": "tiles.errors",
    "StoreIncomplete": "tiles.errors",
    "StoreMismatch": "tiles.errors",
    "StoreUnreachable": "tiles.errors",
    "StoreUnwritable": "tiles.errors",
    "Tile": "tiles.grid",
    "TileGrid": "tiles.grid",
    "TilesError": "tiles.errors",
    "Window": "tiles.window",
    "write_mosaic": "tiles.mosaic",
}

__all__ = [
    "Chip",
    "FeatureStore",
    "Frame",
    "Progress",
    "ProjectionError",
    "Raster",
    "RasterError",
    "StoreDamaged",
    "StoreIncomplete",
    "StoreMismatch",
    "StoreUnreachable",
    "StoreUnwritable",
    "Tile",
    "TileGrid",
    "TilesError",
    "Window",
    "write_mosaic",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'tiles' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

"""Cuts rasters into tiles, and keeps what is computed from them. Knows nothing of any model."""

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

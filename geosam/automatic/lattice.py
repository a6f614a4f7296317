"""Where a tile is prompted: the points of a lattice in its core.

The lattice starts where the CRS starts, or at a landmark, but not where the raster does: a clip of
a raster is prompted at the same places as the whole.
"""

import numpy as np
import numpy.typing as npt
import shapely

from geosam.placement import Points
from tiles import Tile

Indices = npt.NDArray[np.int64]

_LEVELS = 3  # of sparser lattices that are prompted first


def lattice(
    tile: Tile, step_px: int, origin: tuple[int, int], area: shapely.Geometry | None = None
) -> Points:
    """The lattice's points in a tile's core, (N, 2) raster px, sparser lattices first.

    So when a point's turn comes, masks of points around it are known, and may explain it.

    Args:
        tile: in whose core.
        step_px: between points, tile px.
        origin: (col, row) of a raster px where the lattice starts.
        area: raster px; only points in it count. None: everywhere.
    """
    step = step_px * tile.scale
    core = tile.core
    axes = []
    for low, high, start in zip(
        (core.col, core.row), (core.right, core.bottom), origin, strict=True
    ):
        offset = start + tile.scale / 2  # the middle of a tile pixel
        first, stop = (int(np.ceil((edge - offset) / step)) for edge in (low, high))
        axes.append((np.arange(first, stop), offset))
    (cols, left), (rows, top) = axes
    i, j = (index.ravel() for index in np.meshgrid(cols, rows))
    points = np.column_stack([left + step * i, top + step * j])
    order = np.argsort(-np.minimum(_level(i), _level(j)), kind="stable")
    points = points[order]
    if area is not None:
        shapely.prepare(area)
        points = points[shapely.contains_xy(area, *points.T)]
    return points


def _level(index: Indices) -> Indices:
    """How often an index can be halved, at most `_LEVELS` times."""
    level = np.zeros_like(index)
    for power in range(1, _LEVELS + 1):
        level += index % 2**power == 0
    return level

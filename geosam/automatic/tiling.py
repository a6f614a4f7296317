"""Where the tiles of a scene lie in which every object is looked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely

from geosam.automatic.lattice import lattice
from geosam.placement import Points
from geosam.scene import Scene
from tiles import Tile


class Tiling(Protocol):
    """Tiles over a scene, at each scale, and what they are asked."""

    @property
    def joins(self) -> bool:
        """Whether what a tile's edge cuts is to be joined with what other tiles see of it."""
        ...

    def rows(self, scale: float) -> Iterator[Sequence[Tile]]:
        """The tiles of a scale from the top down, some at a time."""
        ...

    def over(self, tile: Tile, scale: float) -> Iterator[Tile]:
        """The tiles of a scale that answer for ground of another one's."""
        ...

    def points(self, tile: Tile, step_px: int, area: shapely.Geometry | None) -> Points:
        """Where a tile is prompted: (N, 2) raster px, sparser ones first, see `lattice`."""
        ...

    def whole_px(self, scale: float) -> float:
        """Longer side, raster px, up to which objects are always seen whole at a scale."""
        ...

    def largest_px(self, scale: float) -> float:
        """Longer side, raster px, of objects that a scale answers for."""
        ...


@dataclass(frozen=True, slots=True)
class Grids:
    """The tiles of a scene's feature store.

    Attributes:
        scene: whose.
        coarsest: of the scales that are looked at.
    """

    scene: Scene
    coarsest: float

    @property
    def joins(self) -> bool:
        """Neighbours overlap enough."""
        return True

    def rows(self, scale: float) -> Iterator[Sequence[Tile]]:
        """Row by row of the grid."""
        grid = self.scene.store.grid(scale)
        return ([grid[row, col] for col in range(grid.cols)] for row in range(grid.rows))

    def over(self, tile: Tile, scale: float) -> Iterator[Tile]:
        """Those whose cores share pixels."""
        return self.scene.store.grid(scale).over(tile.core)

    def points(self, tile: Tile, step_px: int, area: shapely.Geometry | None) -> Points:
        """Those of one lattice a scale, anchored where the CRS starts."""
        return lattice(tile, step_px, self.scene.frame.anchor, area)

    def whole_px(self, scale: float) -> float:
        """What tiles share, wherever it falls."""
        return self.scene.store.grid(scale).overlap * scale

    def largest_px(self, scale: float) -> float:
        """The stride.

        What is larger may or may not fit a tile, depending on where the tiles fall; the next
        coarser scale sees it whole. The coarsest scale takes all.
        """
        grid = self.scene.store.grid(scale)
        return (grid.size - grid.overlap) * scale if scale < self.coarsest else np.inf

"""Which tiles of a scene an area touches, and in what order to encode them."""

from collections.abc import Sequence

import numpy as np
import shapely
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from geosam.placement import outline_to_pixels
from geosam.scene import Scene
from tiles import FeatureStore, Tile


def tiles_in(
    scene: Scene, scales: Sequence[float], area: BaseGeometry | None, crs: CRS | None
) -> list[Tile]:
    """The tiles whose cores an area touches; all if there is none.

    Args:
        scene: whose tiles.
        scales: of these grids.
        area: polygons in world coordinates.
        crs: of the area; None: the raster's.

    Raises:
        ProjectionError: the area has no place in the raster's CRS.
    """
    tiles = [tile for scale in scales for tile in scene.store.grid(scale)]
    if area is None:
        return tiles
    shape = shapely.make_valid(outline_to_pixels(area, crs, scene.frame))
    cores = shapely.box(*np.array([edges(tile) for tile in tiles], np.float64).T)
    shapely.prepare(shape)
    touched = np.flatnonzero(shapely.intersects(shape, cores))
    return [tiles[i] for i in touched]


def outward(tiles: Sequence[Tile], view: tuple[float, float]) -> list[Tile]:
    """Tiles by how far their cores are from where the user looks, in raster px; coarser ones first.

    So the place where clicks are answered at once, which needs tiles of several scales, grows from
    the view outward.
    """
    cores = np.array([edges(tile) for tile in tiles], np.float64).reshape(-1, 2, 2)
    distance = np.maximum(cores[:, 0] - view, view - cores[:, 1]).max(1).clip(0)
    coarseness = np.array([-tile.scale for tile in tiles])
    return [tiles[i] for i in np.lexsort((coarseness, distance))]


def stored_area(store: FeatureStore, scales: Sequence[float]) -> BaseGeometry:
    """Where a store has tiles of all of some scales: polygons, in raster px; maybe none."""
    areas = []
    for scale in scales:
        missing = {tile.index for tile in store.missing(scale)}
        cores = [edges(tile) for tile in store.grid(scale) if tile.index not in missing]
        boxes = shapely.box(*np.array(cores, np.float64).reshape(-1, 4).T)
        areas.append(shapely.coverage_union_all(boxes))
    common = shapely.intersection_all(areas)
    return shapely.simplify(common, 0)  # drops the corners of single tiles along an edge


def edges(tile: Tile) -> tuple[int, int, int, int]:
    """(xmin, ymin, xmax, ymax) of a tile's core, raster px."""
    core = tile.core
    return core.col, core.row, core.right, core.bottom

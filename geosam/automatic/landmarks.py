"""Tiles that lie where the image itself says, so that what they show is the same in every extent.

A landmark is a bright spot that outshines all others near it. Each is the middle of a tile, and
each point of ground is asked in the tile of the landmark nearest to it: wherever the raster starts
or ends, the same ground is asked at the same points, in tiles that see the same pixels.

Sources: bright spots by a difference of means, after Bay et al. 2008, SURF; chosen the strongest
first, each suppressing its neighbours, as in non-maximum suppression.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage
from scipy.spatial import KDTree

from geosam.automatic.lattice import lattice
from geosam.centred import CentredScene
from geosam.placement import Points
from geosam.protocol import Progress
from tiles import Tile, Window

Places = npt.NDArray[np.int64]
"""(N, 2) col, row in raster px."""

SPOT_PX, AROUND_PX = 2, 6  # half sides of the squares whose means are compared
BLOCK_PX = 1024  # side of what is looked through at once; bounds the memory
BAND = 64  # tiles in a batch


class Landmarks:
    """Tiles round the landmarks of a scene, at least a quarter of a tile from one to the next.

    An object of up to a quarter of a tile is seen whole from wherever it is asked, and one of twice
    as much from its middle, so nothing need be joined.
    """

    joins = False

    def __init__(
        self,
        scene: CentredScene,
        scales: Sequence[float],
        area: shapely.Geometry | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Looks through the raster when tiles are first wanted.

        Args:
            scene: where.
            scales: raster px per tile px, finest first.
            area: raster px; tiles are wanted in and near it. None: everywhere.
            progress: called with (0, blocks) at each block that is looked through.
        """
        self._scene = scene
        self._scales = scales
        self._area = area
        self._progress = progress
        self._trees: dict[float, KDTree] = {}

    def rows(self, scale: float) -> Iterator[Sequence[Tile]]:
        """Tiles in the order of their middles' rows."""
        places = self._tree(scale).data
        for start in range(0, len(places), BAND):
            yield [self._tile(scale, place) for place in places[start : start + BAND]]

    def over(self, tile: Tile, scale: float) -> Iterator[Tile]:
        """Those whose middles lie in what a tile answers for, or nearly so."""
        core, margin = tile.core, self.whole_px(scale)
        tree = self._tree(scale)
        middle = ((core.col + core.right) / 2, (core.row + core.bottom) / 2)
        reach = max(core.shape) / 2 + margin
        for i in sorted(tree.query_ball_point(middle, reach, p=np.inf)):
            yield self._tile(scale, tree.data[i])

    def points(self, tile: Tile, step_px: int, area: shapely.Geometry | None) -> Points:
        """Those of a lattice round the tile's landmark that lie nearest to this one."""
        row, col = tile.index
        points = lattice(tile, step_px, (col, row), area)
        tree = self._tree(tile.scale)
        near = sorted(tree.query_ball_point((col, row), tile.read.width, p=np.inf))
        away = np.abs(points[:, None] - tree.data[near]).max(2)  # (N, landmarks)
        own = (tree.data[near] == (col, row)).all(1).argmax()
        nearest: Points = points[away.argmin(1) == own]
        return nearest

    def whole_px(self, scale: float) -> float:
        """What lies within a tile though its landmark is as far away as another one may be."""
        return self._scene.model.size // 4 * scale

    def largest_px(self, scale: float) -> float:
        """Whatever a tile holds."""
        return np.inf

    def _tile(self, scale: float, place: npt.NDArray[np.float64]) -> Tile:
        """The tile round a landmark; its core ends an eighth of a tile before its edges."""
        col, row = place.tolist()
        tile = self._scene.locate(scale, (col, row, col, row))
        margin = tile.read.width // 8
        read = tile.read
        height, width = self._scene.frame.shape
        core = Window.spanning(
            read.col + margin, read.row + margin, read.right - margin, read.bottom - margin
        )
        return Tile(tile.index, scale, read, core & Window(0, 0, width, height) or core)

    def _tree(self, scale: float) -> KDTree:
        """The landmarks of a scale, in the order of their rows."""
        if not self._trees:
            radius_px = round(self.whole_px(self._scales[0])) // 4
            spots = bright_spots(self._scene, radius_px, self._ground(), self._progress)
            for own in self._scales:
                places = apart(spots, self.whole_px(own))
                self._trees[own] = KDTree(places[np.lexsort(places.T)])
        return self._trees[scale]

    def _ground(self) -> Window:
        """The part of the raster whose landmarks can matter: two tiles beyond the area."""
        height, width = self._scene.frame.shape
        whole = Window(0, 0, width, height)
        if self._area is None:
            return whole
        margin = math.ceil(2 * self._scene.model.size * self._scales[-1])
        left, top, right, bottom = shapely.bounds(self._area).tolist()
        near = Window.spanning(
            math.floor(left) - margin, math.floor(top) - margin,
            math.ceil(right) + margin, math.ceil(bottom) + margin,
        )  # fmt: skip
        return near & whole or whole


def bright_spots(
    scene: CentredScene, radius_px: int, ground: Window, progress: Progress | None = None
) -> Places:
    """Pixels that stand out more than all others within some px of them, the strongest first.

    Where nothing stands out there is one in the middle.

    Args:
        scene: whose raster is looked through.
        radius_px: how far a pixel must outshine the others.
        ground: the part of the raster from which they come.
        progress: see `Landmarks`.

    Raises:
        RasterError, StoreIncomplete: see `Scene.readable`.
    """
    height, width = scene.frame.shape
    found, strengths = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    tops, lefts = (
        range(start, stop, BLOCK_PX)
        for start, stop in ((ground.row, ground.bottom), (ground.col, ground.right))
    )
    corners = list(product(tops, lefts))  # by rows, as most files lie on disk
    margin = radius_px + AROUND_PX
    raster = scene.readable("its landmarks")
    for row, col in corners:
        block = Window(col, row, BLOCK_PX, BLOCK_PX) & ground or ground
        seen = Window.spanning(
            block.col - margin, block.row - margin, block.right + margin, block.bottom + margin
        )
        chip = raster.read(seen, scene.recipe.stretch.bands)
        if progress:
            progress(0, len(corners))
        if not chip.valid.any():
            continue
        light = scene.recipe.stretch(chip).astype(np.int64).sum(0) + 1
        ours = np.zeros(seen.shape, bool)
        common = seen & Window(0, 0, width, height) or block
        ours[common.slices(seen)] = True
        strength = np.where(chip.valid, brightness(light * chip.valid, ours), 0)
        highest = ndimage.maximum_filter(strength, 2 * radius_px + 1, mode="constant")
        inside = block.slices(seen)
        top = (strength > 0) & (strength == highest)
        rows, cols = np.nonzero(top[inside])
        found.append(np.column_stack([cols + col, rows + row]))
        strengths.append(strength[inside][rows, cols])
    places, strength = np.concatenate(found), np.concatenate(strengths)
    if not len(places):
        middle = (ground.col + ground.right) // 2, (ground.row + ground.bottom) // 2
        return np.array([middle], np.int64)
    return places[np.lexsort((*places.T, -strength))]


def brightness(light: Places, ours: npt.NDArray[np.bool_]) -> Places:
    """How much brighter the mean of a small square is than that of a larger one, (H, W).

    In whole numbers, so that it is the same to the last bit wherever a pixel lies.

    Args:
        light: (H, W), 0 where there is no data.
        ours: (H, W), the pixels of the raster; others do not count, so that it has no bright rim.
    """
    small, around = (_sums(light * ours, half) for half in (SPOT_PX, AROUND_PX))
    few, many = (_sums(ours.astype(np.int64), half) for half in (SPOT_PX, AROUND_PX))
    return small * many - around * few


def apart(places: Places, distance_px: float) -> Places:
    """Those of some places, the first first, that lie no nearer to one taken, on either axis."""
    tree = KDTree(places)
    free = np.ones(len(places), bool)
    taken = []
    for i, place in enumerate(places):
        if free[i]:
            taken.append(i)
            free[tree.query_ball_point(place, distance_px, p=np.inf)] = False
    return places[taken]


def _sums(values: Places, half: int) -> Places:
    """Sums over squares round each pixel; beyond the edges there is nothing."""
    ones = np.ones(2 * half + 1, np.int64)
    for axis in (0, 1):
        values = ndimage.correlate1d(values, ones, axis, mode="constant")
    return values

"""Objects burnt into a label raster, block by block.

With `fill_px` narrow gaps between objects are given to their neighbours. A pixel's label depends on
the objects near it alone, not on the blocks.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.windows import Window as RasterioWindow

from geosam.automatic.objects import Flags, Numbers, Objects, load, save
from geosam.tile_masks import Cells
from tiles import Frame, Window

BLOCK = 1024  # px
A_DOUBLING = 0.05  # of the score
_REQUEST = "GEOSAM_REQUEST"  # tag of a label raster
_SMALL_PX = 2 * BLOCK  # objects that are lower than this are read for few rows of blocks

Labels = npt.NDArray[np.uint32]


class _File(NamedTuple):
    """Where objects in a file lie, in raster rows, and the least and greatest of their labels."""

    path: Path
    top: float
    bottom: float
    first: int
    last: int


class Spool:
    """Labelled objects in files, to be read back by where they lie or by their labels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files: list[_File] = []

    def put(self, objects: Objects, labels: npt.NDArray[np.int64]) -> None:
        """Keep objects with their labels, which rise."""
        bounds = objects.bounds
        small = bounds[:, 3] - bounds[:, 1] < _SMALL_PX
        for chosen in (small, ~small):
            if chosen.any():
                path, own = self.folder / f"{len(self._files)}.npz", labels[chosen]
                save(path, objects.take(chosen).to_arrays() | {"labels": own})
                top, bottom = bounds[chosen, 1].min(), bounds[chosen, 3].max()
                self._files.append(_File(path, top, bottom, own[0], own[-1]))

    def between(self, top: float, bottom: float) -> tuple[Objects, npt.NDArray[np.int64]]:
        """The objects that reach into a range of raster rows, with their labels."""
        near = (file for file in self._files if file.top < bottom and file.bottom > top)
        return self._those(near, lambda objects, _: _reaching(objects.bounds, top, bottom))

    def labelled(self, labels: npt.NDArray[np.int64]) -> Objects:
        """The objects with these labels, which rise, in their order."""
        near = (file for file in self._files if _any_within(labels, file.first, file.last))
        objects, found = self._those(near, lambda _, own: np.isin(own, labels))
        return objects.take(np.argsort(found))

    def _those(
        self, files: Iterable[_File], chosen: Callable[[Objects, npt.NDArray[np.int64]], Flags]
    ) -> tuple[Objects, npt.NDArray[np.int64]]:
        parts, labels = [Objects.none()], [np.empty(0, np.int64)]
        for file in files:
            arrays = load(file.path)
            if arrays is not None:
                objects, own = Objects.from_arrays(arrays), arrays["labels"]
                kept = chosen(objects, own)
                parts.append(objects.take(kept))
                labels.append(own[kept])
        return Objects.joined(parts), np.concatenate(labels)


def _reaching(bounds: Numbers, top: float, bottom: float) -> Flags:
    return (bounds[:, 1] < bottom) & (bounds[:, 3] > top)


def _any_within(rising: npt.NDArray[np.int64], first: int, last: int) -> bool:
    return bool(np.searchsorted(rising, first) < np.searchsorted(rising, last, "right"))


@dataclass(frozen=True, slots=True)
class Ground:
    """What may be painted.

    Attributes:
        area: raster px; None: everywhere.
        validity: gives where a window of the raster has data, or None if nobody knows.
        fill_px: how wide a gap may be, twice, to be given to its neighbours; 0: none.
    """

    area: shapely.Geometry | None
    validity: Callable[[Window], Cells | None]
    fill_px: int


Order = Callable[[Objects, npt.NDArray[np.int64]], npt.NDArray[np.intp]]
"""Of objects and their labels, in which order they are painted, the last one on top."""


def smallest_on_top(objects: Objects, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Each pixel shows the smallest object that it lies on; see `Order`."""
    return _ranked(-shapely.area(objects.outlines), objects, labels)


def best_on_top(objects: Objects, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """A roof is not cut up by its parts, if it is surer than they are; see `Order`.

    A larger object lies over a smaller one if its score is higher by `A_DOUBLING` for each time
    that its area is doubled, so a tree stays visible in its field.
    """
    doublings = np.log2(np.maximum(shapely.area(objects.outlines), 1))
    return _ranked(objects.scores - A_DOUBLING * doublings, objects, labels)


def _ranked(
    merit: Numbers, objects: Objects, labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    order: npt.NDArray[np.intp] = np.lexsort((labels, merit, -objects.tiers, ~objects.truncated))
    return order


def paint(
    spool: Spool,
    frame: Frame,
    path: Path,
    ground: Ground,
    order: Order,
    advance: Callable[[], None],
    *,
    request: str,
) -> None:
    """Write the label raster (uint32, tiled, 0: no object) of a scene's objects.

    Calls `advance` after each block. The raster keeps what was asked for, see `answers`.

    Raises:
        OSError: it cannot be written.
    """
    height, width = frame.shape
    profile = {
        "driver": "GTiff", "dtype": "uint32", "count": 1, "height": height, "width": width,
        "crs": frame.crs.to_wkt(), "transform": frame.transform, "nodata": 0, "tiled": True,
        "blockxsize": 256, "blockysize": 256, "compress": "deflate", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    with rasterio.Env(), rasterio.open(path, "w", **profile) as file:  # GDAL's words go to the log
        file.update_tags(**{_REQUEST: request})
        for window, labels in _blocks(spool, frame, ground, order):
            place = RasterioWindow(window.col, window.row, window.width, window.height)
            file.write(labels, 1, window=place)
            advance()


def answers(path: Path, request: str) -> bool:
    """Whether a file is a label raster that `paint` wrote for the same request."""
    try:
        with rasterio.open(path) as file:
            return bool(file.tags().get(_REQUEST) == request)
    except RasterioError:
        return False


def _blocks(
    spool: Spool, frame: Frame, ground: Ground, order: Order
) -> Iterator[tuple[Window, Labels]]:
    height, width = frame.shape
    halo = ground.fill_px
    for top in range(0, height, BLOCK):
        rows = max(top - halo, 0), min(top + BLOCK + halo, height)
        objects, labels = spool.between(*rows)
        painted_first = order(objects, labels)
        objects, labels = objects.take(painted_first), labels[painted_first]
        bounds = objects.bounds
        for left in range(0, width, BLOCK):
            cols = max(left - halo, 0), min(left + BLOCK + halo, width)
            wide = Window.spanning(cols[0], rows[0], cols[1], rows[1])
            near = (bounds[:, 0] < wide.right) & (bounds[:, 2] > wide.col)
            painted = _burn(objects.outlines[near], labels[near], wide)
            painted = _on_ground(painted, wide, ground)
            right, bottom = min(left + BLOCK, width), min(top + BLOCK, height)
            block = Window.spanning(left, top, right, bottom)
            yield block, painted[block.slices(wide)]


def _burn(
    outlines: npt.NDArray[np.object_], labels: npt.NDArray[np.int64], window: Window
) -> Labels:
    if not len(outlines):
        return np.zeros(window.shape, np.uint32)
    burnt: Labels = rasterize(
        zip(outlines, labels.tolist(), strict=True),
        window.shape,
        transform=Affine.translation(window.col, window.row),
        dtype="uint32",
    )
    return burnt


def _on_ground(labels: Labels, window: Window, ground: Ground) -> Labels:
    """Labels with narrow gaps filled, where there is data within the area of interest."""
    allowed = np.ones(window.shape, bool)
    if ground.area is not None:
        allowed = _burn(np.array([ground.area], object), np.ones(1, np.int64), window) > 0
    if ground.fill_px and not labels.all():
        valid = ground.validity(window)
        if valid is not None:
            allowed &= valid
        labels = _grown(labels, allowed, ground.fill_px)
    return np.where(allowed, labels, 0).astype(np.uint32)


def _grown(labels: Labels, allowed: Cells, steps: int) -> Labels:
    """Labels that have grown by so many px over what is allowed and has none."""
    for _ in range(steps):
        free = (labels == 0) & allowed
        around = np.pad(labels, 1)
        for neighbour in (around[:-2, 1:-1], around[1:-1, :-2], around[1:-1, 2:], around[2:, 1:-1]):
            labels = np.where(free & (labels == 0), neighbour, labels)
        if not (free & (labels > 0)).any():
            break
    return labels

"""Traces the labels of a raster file along their pixel edges, block by block."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.features import shapes
from rasterio.windows import Window as RasterioWindow
from shapely import Polygon

from geosam.errors import MaskError
from geosam.protocol import Progress
from tiles.errors import RasterError
from tiles.raster import Raster
from tiles.window import Window

Polygons: TypeAlias = npt.NDArray[np.object_]
Labels: TypeAlias = npt.NDArray[np.integer | np.bool_]

BLOCK = 1024


def trace(
    path: str | Path,
    *,
    simplify_m: float = 0.0,
    progress: Progress | None = None,
    block: int = BLOCK,
) -> tuple[list[int], Polygons, CRS]:
    """The outlines of every part of every label in a raster.

    A part is what hangs together by pixel edges. 0 and pixels without data are background. Memory
    is bounded by one block and the outlines.

    Args:
        path: A raster with one band of whole numbers. A palette does not matter.
        simplify_m: At each place, how much may be cut off or added to get simpler outlines: the
            side of a square, in metres. Parts that touch still touch. 0: nothing.
        progress: Called with (done, total) blocks.
        block: Pixels per side of the blocks. It does not change the outlines.

    Returns:
        The label of each part, in rising order; the parts, (N,) Polygons, those of one label from
        the top down; the CRS of their coordinates.

    Raises:
        RasterError: If the raster cannot be opened or read, or does not lie anywhere.
        MaskError: If it is not one band of whole numbers.
    """
    with Raster.open(path) as raster:
        frame = raster.frame
    whole: dict[int, list[Polygon]] = defaultdict(list)
    cut: dict[int, list[Polygon]] = defaultdict(list)
    windows = list(_blocks(frame.shape, block))
    for done, (window, labels) in enumerate(_read(path, windows), start=1):
        for label, piece in outline_pixels(labels, window.col, window.row):
            (whole if _is_inside(piece, window) else cut)[label].append(piece)
        if progress:
            progress(done, len(windows))
    for label, pieces in cut.items():
        joined = shapely.simplify(shapely.union_all(pieces), 0.0)
        whole[label].extend(shapely.get_parts(joined))
    labels_of_parts = [label for label in sorted(whole) for _ in whole[label]]
    parts = np.array([part for label in sorted(whole) for part in _top_down(whole[label])], object)
    if simplify_m:
        parts = _simplify_together(parts, simplify_m / max(frame.pixel_size_m))
    return labels_of_parts, shapely.transform(parts, frame.to_world), frame.crs


def outline_pixels(labels: Labels, col: int = 0, row: int = 0) -> Iterator[tuple[int, Polygon]]:
    """The outlines of equal, edge-connected pixels other than 0: (label, polygon) in pixels.

    Args:
        labels: (H, W) whole numbers or bool.
        col: Column of the first pixel.
        row: Row of the first pixel.
    """
    values, codes = np.unique(labels, return_inverse=True)
    codes = np.where(labels == 0, 0, codes.reshape(labels.shape) + 1).astype(np.int32)
    place = Affine.translation(col, row)
    for outline, code in shapes(codes, mask=codes > 0, connectivity=4, transform=place):
        shell, *holes = outline["coordinates"]
        yield int(values[int(code) - 1]), Polygon(shell, holes)


def _blocks(shape: tuple[int, int], size: int) -> Iterator[Window]:
    height, width = shape
    for row in range(0, height, size):
        for col in range(0, width, size):
            yield Window(col, row, min(size, width - col), min(size, height - row))


def _read(path: str | Path, windows: list[Window]) -> Iterator[tuple[Window, Labels]]:
    """The labels in each window, 0 where there is no data."""
    with rasterio.open(path) as dataset:
        kinds = zip(dataset.indexes, dataset.colorinterp, strict=True)
        bands = [band for band, kind in kinds if kind != ColorInterp.alpha]
        dtypes = {dataset.dtypes[band - 1] for band in bands}
        if len(bands) != 1 or not np.issubdtype(dtypes.pop(), np.integer):
            raise MaskError(
                f"{path}: {len(bands)} bands of {', '.join(sorted(set(dataset.dtypes)))} (expected "
                "one band of whole numbers, the labels). Convert it, for example with "
                "`gdal_translate -b 1 -ot UInt32`."
            )
        for window in windows:
            place = RasterioWindow(window.col, window.row, window.width, window.height)
            try:
                labels = dataset.read(bands[0], window=place)
                valid = dataset.read_masks(bands[0], window=place) > 0
            except RasterioError as error:
                raise RasterError(
                    f"Raster {path}: unreadable at {window} ({error.__cause__ or error}). "
                    "The file is damaged or out of reach: get it again."
                ) from error
            yield window, np.where(valid, labels, 0)


def _is_inside(polygon: Polygon, window: Window) -> bool:
    """Whether a polygon stays off the borders of the window it was found in."""
    xmin, ymin, xmax, ymax = polygon.bounds
    return bool(
        window.col < xmin and window.row < ymin and xmax < window.right and ymax < window.bottom
    )


def _top_down(parts: list[Polygon]) -> list[Polygon]:
    return sorted(parts, key=lambda part: (part.bounds[1], part.bounds[0], part.bounds))


def _simplify_together(parts: Polygons, tolerance: float) -> Polygons:
    """Simplify outlines along pixel edges so that neighbours still share their borders.

    For that, neighbours must share every vertex: all pixel corners along the outlines become one.
    """
    stepped: Polygons = shapely.transform(shapely.segmentize(parts, 1.0), np.rint)
    own, _ = shapely.STRtree(parts).query(parts, predicate="intersects")
    alone = np.bincount(own, minlength=len(parts)) == 1
    simpler = np.empty_like(parts)
    simpler[~alone] = shapely.coverage_simplify(stepped[~alone], tolerance)
    for index in np.flatnonzero(alone):  # One by one: many at once take more than their sum.
        simpler[index] = shapely.coverage_simplify(stepped[index], tolerance)
    return simpler

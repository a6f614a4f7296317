"""Traces the labels of a raster file along their pixel edges, block by block."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
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
from shapely import MultiPolygon, Polygon

from geosam.errors import MaskError
from geosam.protocol import Progress
from tiles.errors import RasterError
from tiles.raster import Raster
from tiles.window import Window

Polygons: TypeAlias = npt.NDArray[np.object_]
Labels: TypeAlias = npt.NDArray[np.integer | np.bool_]

BLOCK = 2048


def trace(
    path: str | Path,
    *,
    simplify_m: float = 0.0,
    progress: Progress | None = None,
    block: int = BLOCK,
) -> tuple[list[int], Polygons, CRS]:
    """The outlines of every part of every label in a raster.

    A part is what hangs together by pixel edges. 0 and pixels without data are background.

    Args:
        path: A raster with one band of whole numbers. A palette does not matter.
        simplify_m: At each place, how much may be cut off or added to get simpler outlines: the
            side of a square, in metres. Parts that touch still touch. 0: nothing.
        progress: Called with (done, total) blocks.
        block: Pixels per side of the blocks. It changes simplified outlines only, which keep the
            pixel's corner where they cross from one block into another.

    Returns:
        The label of each part, in rising order; the parts, (N,) Polygons, those of one label from
        the top down; the CRS of their coordinates.

    Raises:
        RasterError: If the raster cannot be opened or read, or does not lie anywhere.
        MaskError: If it is not one band of whole numbers.
    """
    with Raster.open(path) as raster:
        crs = raster.frame.crs
    found: dict[int, Polygon | MultiPolygon] = {}
    for labels, areas in trace_down(path, simplify_m=simplify_m, progress=progress, block=block):
        found |= zip(labels, areas, strict=True)
    names = sorted(found)
    parts, owners = shapely.get_parts([found[name] for name in names], return_index=True)
    return [names[owner] for owner in owners], parts, crs


def trace_down(
    path: str | Path,
    *,
    simplify_m: float = 0.0,
    progress: Progress | None = None,
    block: int = BLOCK,
) -> Iterator[tuple[list[int], Polygons]]:
    """The same, from the top down: after each row of blocks the labels of which no more comes.

    Memory is bounded by a block, and by the outlines of the labels that reach into a row of them.
    The raster is read twice. Blocks are counted from the CRS's origin, so a clip has the scene's.

    Yields:
        Labels, rising; and for each of them its Polygon, or the MultiPolygon of its parts.
    """
    with Raster.open(path) as raster:
        frame = raster.frame
    tolerance = simplify_m / max(frame.pixel_size_m) if simplify_m else 0.0
    rows = _rows_of_blocks(frame.shape, block, frame.anchor)
    done, total = 0, sum(map(len, rows))
    finished: dict[int, list[Polygon]] = defaultdict(list)
    going_on: dict[int, list[Polygon]] = {}
    for row, ends in zip(rows, _ends(path, rows), strict=True):
        cut = defaultdict(list, going_on)
        for window, around, labels in _read(path, row, margin=1):
            for label, piece in _pieces(labels, window, around, tolerance):
                (finished if _is_inside(piece, window) else cut)[label].append(piece)
            done += 1
            if progress:
                progress(done, total)
        going_on = defaultdict(list)
        for label, pieces in cut.items():
            for part in _joined(pieces, exact=not tolerance):
                below = label not in ends and part.bounds[3] == row[0].bottom
                (going_on if below else finished)[label].append(part)
        labels_here = sorted(ends)
        areas = np.empty(len(labels_here), object)
        areas[:] = [_whole(finished.pop(label)) for label in labels_here]
        yield labels_here, shapely.transform(areas, frame.to_world)


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


def _rows_of_blocks(
    shape: tuple[int, int], size: int, anchor: tuple[int, int]
) -> list[list[Window]]:
    """Blocks that cover a raster, from the top down; an anchor (col, row) is a corner of one."""
    (height, width), (col, row) = shape, anchor
    tops, lefts = (
        [0, *range(at % size or size, length, size), length]
        for at, length in ((row, height), (col, width))
    )
    return [
        [Window.spanning(left, top, right, bottom) for left, right in pairwise(lefts)]
        for top, bottom in pairwise(tops)
    ]


def _ends(path: str | Path, rows: list[list[Window]]) -> list[set[int]]:
    """Of each row of blocks, the labels that no later one has."""
    seen = [
        np.unique(np.concatenate([np.unique(labels) for _, _, labels in _read(path, row)]))
        for row in rows
    ]
    later, ends = seen[-1][:0], []
    for labels in reversed(seen):
        ends.append(set(np.setdiff1d(labels, later, assume_unique=True).tolist()) - {0})
        later = np.union1d(labels, later)
    return ends[::-1]


def _read(
    path: str | Path, windows: list[Window], margin: int = 0
) -> Iterator[tuple[Window, Window, Labels]]:
    """Each window, the same with a margin where the raster has one, and the labels in that.

    They are 0 where there is no data.
    """
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
            around = Window.spanning(
                max(window.col - margin, 0),
                max(window.row - margin, 0),
                min(window.right + margin, dataset.width),
                min(window.bottom + margin, dataset.height),
            )
            place = RasterioWindow(around.col, around.row, around.width, around.height)
            try:
                labels = dataset.read(bands[0], window=place)
                valid = dataset.read_masks(bands[0], window=place) > 0
            except RasterioError as error:
                raise RasterError(
                    f"Raster {path}: unreadable at {window} ({error.__cause__ or error}). "
                    "The file is damaged or out of reach: get it again."
                ) from error
            yield window, around, np.where(valid, labels, 0)


def _pieces(
    labels: Labels, window: Window, around: Window, tolerance: float
) -> list[tuple[int, Polygon]]:
    """The outlines within a window, of labels in a window with a margin of up to one pixel.

    Simplified, they keep a vertex wherever labels change along the window's edge, on either side
    of it. So what lies in the next window fits, wherever that is simplified.
    """
    pieces = list(outline_pixels(labels[window.slices(around)], window.col, window.row))
    if not tolerance:
        return pieces
    beyond = []
    for left, top, right, bottom in (
        (window.col, around.row, window.right, window.row),
        (window.col, window.bottom, window.right, around.bottom),
        (around.col, window.row, window.col, window.bottom),
        (window.right, window.row, around.right, window.bottom),
    ):
        if left < right and top < bottom:
            strip = Window.spanning(left, top, right, bottom)
            beyond += list(outline_pixels(labels[strip.slices(around)], left, top))
    outlines = np.array([outline for _, outline in pieces + beyond], object)
    simpler = _simplify_together(outlines, tolerance)[: len(pieces)]
    return [(label, simple) for (label, _), simple in zip(pieces, simpler, strict=True)]


def _joined(pieces: list[Polygon], *, exact: bool) -> list[Polygon]:
    """Pieces that touch along edges as one part, with what vertices they have, or only corners."""
    joined = shapely.union_all(pieces)
    return list(shapely.get_parts(shapely.simplify(joined, 0.0) if exact else joined))


def _is_inside(polygon: Polygon, window: Window) -> bool:
    """Whether a polygon stays off the borders of the window it was found in."""
    xmin, ymin, xmax, ymax = polygon.bounds
    return bool(
        window.col < xmin and window.row < ymin and xmax < window.right and ymax < window.bottom
    )


def _whole(parts: list[Polygon]) -> Polygon | MultiPolygon:
    """Parts of a label as one, from the top down."""
    parts = sorted(parts, key=lambda part: (part.bounds[1], part.bounds[0], part.bounds))
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


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

"""From masks, or from a label raster, to polygons on the ground."""

from collections.abc import Iterable
from itertools import pairwise
from operator import length_hint
from pathlib import Path
from typing import Any, TypeAlias

import contourpy
import geopandas
import numpy as np
import numpy.typing as npt
import pandas
import shapely
from pyproj import CRS, Transformer
from shapely import GeometryType, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geosam.errors import MaskError
from geosam.label_raster import Polygons, outline_pixels, trace
from geosam.masks import NOTHING, Mask
from geosam.protocol import Progress
from tiles.errors import ProjectionError
from tiles.frame import Frame

DEFAULT_TOLERANCE = 0.25  # cells

Numbers: TypeAlias = npt.NDArray[np.float64]

_COLUMNS = {
    "id": "str",
    "status": "str",
    "score": "float64",
    "stability": "float64",
    "area_m2": "float64",
    "tile": "str",
    "scale": "float64",
    "candidate": "int64",
}


def vectorize(
    masks: Iterable[Mask] | str | Path,
    *,
    min_area_m2: float = 0.0,
    simplify_m: float | None = None,
    progress: Progress | None = None,
) -> geopandas.GeoDataFrame:
    """Polygons of masks, or of the labels in a raster file.

    Of masks: one row each, in their order, with the columns id, status, score, stability,
    area_m2, tile, scale and candidate. The outline runs between the cells, where the logits cross
    0; it keeps holes, is one MultiPolygon where the object has several parts, ends at the edges
    of the logits and never covers a pixel without data. Where nothing is left of a mask the
    geometry is None, the area 0, the score NaN and the status "empty" (or "outside").

    Of a raster with one band of whole numbers: the columns label and area_m2. One row a label, in
    their order; if there is but one label, one row for each of its parts that share no pixel
    edge. 0 and no data are background. The outline runs along the pixel edges.

    Args:
        masks: Masks in one CRS, or a label raster: any path or URL that GDAL reads.
        min_area_m2: Parts smaller than this are left out, in square metres.
        simplify_m: How far an outline may move to get simpler, in metres; twice that where a ring
            begins. 0: not at all. None: a quarter of a cell for masks, not at all for a label
            raster. Labels that touch are simplified together and still touch; what is cut off
            or added is then smaller than `simplify_m` squared at each place.
        progress: Called with (done, total) masks or raster blocks; total is 0 where unknown.
            Whatever it raises ends the work.

    Returns:
        The polygons, in the CRS of the masks or the raster. `area_m2` is measured on the CRS's
        ellipsoid; where it has none, on its plane. It is NaN where an outline leaves the planet,
        as at the Earth's edge in a weather satellite's view.

    Raises:
        MaskError: If the masks are in several CRSs, or the raster is not one band of whole
            numbers.
        RasterError: If the raster cannot be opened, or does not lie anywhere.
        ValueError: If `min_area_m2` or `simplify_m` is negative.
    """
    _check_limits(min_area_m2, simplify_m)
    if isinstance(masks, str | Path):
        return _of_labels(masks, min_area_m2, simplify_m or 0.0, progress)
    return _of_masks(masks, min_area_m2, simplify_m, progress)


def _check_limits(min_area_m2: float, simplify_m: float | None) -> None:
    for name, value in (("min_area_m2", min_area_m2), ("simplify_m", simplify_m or 0.0)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}: {value} (expected 0 or a positive number).")


def outline(mask: Mask, simplify_m: float | None = None) -> MultiPolygon:
    """The polygons of one mask in the CRS of its frame, as `vectorize` draws them; maybe none."""
    if mask.logits is None:
        return MultiPolygon()
    cells = outline_cells(mask.logits, mask.valid, _tolerance(mask.frame, simplify_m))
    world: MultiPolygon = shapely.transform(cells, mask.frame.to_world)
    return world


def outline_cells(
    logits: npt.NDArray[np.float32],
    valid: npt.NDArray[np.bool_] | None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> MultiPolygon:
    """The polygons of logits (h, w), in cells from the corner of the first one; maybe none.

    Args:
        logits: the object is where they are above 0.
        valid: (h * k, w * k), where there is data; None: everywhere.
        tolerance: how far the outline may move to get simpler, in cells.
    """
    cells = _simplify(_contour(logits), tolerance)
    return cells if valid is None else _cut(cells, valid, valid.shape[0] // logits.shape[0])


def records(
    masks: Iterable[Mask],
    *,
    min_area_m2: float = 0.0,
    simplify_m: float | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], CRS | None]:
    """The rows of `vectorize`, without the table, which takes longer to make than one polygon.

    Returns:
        A dict each mask, with `geometry` beside the columns; and the CRS, None without masks.
    """
    _check_limits(min_area_m2, simplify_m)
    total = length_hint(masks)
    crs: CRS | None = None
    rows: list[dict[str, Any]] = []
    outlines: list[MultiPolygon] = []
    for done, mask in enumerate(masks, start=1):
        crs = crs or mask.frame.crs
        if mask.frame.crs != crs:
            raise MaskError(
                f"{mask}: in {mask.frame.crs.name} (expected {crs.name}, as the masks before). "
                "Vectorize the masks of each CRS on their own."
            )
        quality = (mask.score, mask.stability, np.nan)
        origin = (mask.tile, mask.scale, mask.candidate)
        values = (mask.prompt_id, mask.status, *quality, *origin)
        rows.append(dict(zip(_COLUMNS, values, strict=True)))
        outlines.append(outline(mask, simplify_m))
        if progress:
            progress(done, total)
    parts, owners = shapely.get_parts(np.array(outlines, object), return_index=True)
    geometries, areas = _gather(parts, owners, len(rows), crs, min_area_m2)
    for row, geometry, area in zip(rows, geometries, areas.tolist(), strict=True):
        row.update(area_m2=area, geometry=geometry)
        if area == 0:
            row.update(score=np.nan, stability=np.nan)
            row["status"] = row["status"] if row["status"] in NOTHING else "empty"
    return rows, crs


def _of_masks(
    masks: Iterable[Mask],
    min_area_m2: float,
    simplify_m: float | None,
    progress: Progress | None,
) -> geopandas.GeoDataFrame:
    rows, crs = records(masks, min_area_m2=min_area_m2, simplify_m=simplify_m, progress=progress)
    geometries = [row.pop("geometry") for row in rows]
    table = pandas.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    return geopandas.GeoDataFrame(table, geometry=geometries, crs=crs)


def _of_labels(
    path: str | Path, min_area_m2: float, simplify_m: float, progress: Progress | None
) -> geopandas.GeoDataFrame:
    labels, parts, crs = trace(path, simplify_m=simplify_m, progress=progress)
    values, owners = np.unique(np.array(labels, object), return_inverse=True)
    if len(values) == 1:
        values, owners = np.array(labels, object), np.arange(len(labels))
    geometries, areas = _gather(parts, owners, len(values), crs, min_area_m2)
    table = pandas.DataFrame({"label": values.tolist(), "area_m2": areas})
    polygons = geopandas.GeoDataFrame(table, geometry=geometries, crs=crs)
    return polygons[areas != 0].reset_index(drop=True)


def _gather(
    parts: Polygons,
    owners: npt.NDArray[np.intp],
    count: int,
    crs: CRS | None,
    min_area_m2: float,
) -> tuple[list[Polygon | MultiPolygon | None], npt.NDArray[np.float64]]:
    """The parts that are large enough, as one geometry an owner, and its area in square metres."""
    areas = measures_m(parts, crs)[0] if crs else np.empty(0)
    small = (areas == 0) | (areas < min_area_m2)  # NaN is neither
    large = ~small
    parts, owners, areas = parts[large], owners[large], areas[large]
    starts = np.searchsorted(owners, np.arange(count + 1))
    geometries = [_whole(parts[start:stop]) for start, stop in pairwise(starts)]
    return geometries, _sum_by(owners, areas, count)


def _whole(parts: Polygons) -> Polygon | MultiPolygon | None:
    if len(parts) > 1:
        return MultiPolygon(parts.tolist())
    return parts[0] if len(parts) else None


def measures_m(polygons: Polygons, crs: CRS) -> tuple[Numbers, Numbers]:
    """Area (m2) and perimeter (m), holes included, of each polygon on the CRS's ellipsoid.

    Where the CRS has no ellipsoid they are measured on its plane. NaN where a vertex is off the
    planet.
    """
    base, geod = crs.geodetic_crs, crs.get_geod()
    if base is None or geod is None or not base.is_geographic:
        unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        return shapely.area(polygons) * unit**2, shapely.length(polygons) * unit
    rings, owners = shapely.get_rings(polygons, return_index=True)
    points, rings_of_points = shapely.get_coordinates(rings, return_index=True)
    transformer = Transformer.from_crs(crs, base, always_xy=True)
    radians = base.axis_info[0].unit_conversion_factor
    longitudes, latitudes = np.degrees(np.array(transformer.transform(*points.T)) * radians)
    starts = np.searchsorted(rings_of_points, np.arange(len(rings) + 1))
    signed, lengths = np.array(
        [
            geod.polygon_area_perimeter(longitudes[start:stop], latitudes[start:stop])
            for start, stop in pairwise(starts)
        ]
    ).reshape(-1, 2).T  # fmt: skip
    is_shell = np.diff(owners, prepend=-1) > 0
    areas = np.where(is_shell, abs(signed), -abs(signed))
    count = len(polygons)
    return _sum_by(owners, areas, count), _sum_by(owners, lengths, count)


def _sum_by(
    owners: npt.NDArray[np.intp], values: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.float64]:
    return np.bincount(owners, values, minlength=count).astype(np.float64)


def _tolerance(frame: Frame, simplify_m: float | None) -> float:
    """How far an outline may move, in cells, so that it moves no further than asked anywhere."""
    if not simplify_m:
        return DEFAULT_TOLERANCE if simplify_m is None else 0.0
    try:
        return simplify_m / max(frame.pixel_size_m)
    except ProjectionError:  # the mask's middle is off the planet, where nothing can be measured
        return 0.0


def _simplify(shape: MultiPolygon, tolerance: float) -> MultiPolygon:
    """Fewer vertices, at an outline within the tolerance (where a ring begins, twice that)."""
    if tolerance == 0 or shape.is_empty:
        return shape
    simpler = _polygonal(shapely.simplify(shape, tolerance))
    return simpler if simpler.is_valid and not simpler.is_empty else shape


def _cut(cells: MultiPolygon, valid: npt.NDArray[np.bool_], pixels_per_cell: int) -> MultiPolygon:
    """What is left of a shape, in cells, outside the pixels that are not valid."""
    if cells.is_empty:
        return cells
    bounds = np.array(cells.bounds) * pixels_per_cell
    (left, top), (right, bottom) = np.floor(bounds[:2]).astype(int), np.ceil(bounds[2:]).astype(int)
    gaps = ~valid[top:bottom, left:right]
    if not gaps.any():
        return cells
    outlines = [polygon for _, polygon in outline_pixels(gaps, left, top)]
    no_data = shapely.transform(shapely.union_all(outlines), lambda xy: xy / pixels_per_cell)
    return _polygonal(shapely.difference(cells, no_data))


def _polygonal(geometry: BaseGeometry) -> MultiPolygon:
    """The areas among what a geometry operation returned."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return MultiPolygon(parts[shapely.get_type_id(parts) == GeometryType.POLYGON].tolist())


def _contour(logits: npt.NDArray[np.float32]) -> MultiPolygon:
    """Where the logits are above 0, in cells from the top-left corner of the first one.

    A logit holds at its cell's centre; between centres the surface is bilinear, from the outer
    centres to the edge it is level.
    """
    positive = logits > 0
    rows, cols = (np.flatnonzero(positive.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return MultiPolygon()
    top, bottom = _with_margin(rows, logits.shape[0])
    left, right = _with_margin(cols, logits.shape[1])
    surface = np.pad(logits[top:bottom, left:right], 1, mode="edge")
    contours: Any = contourpy.contour_generator(
        _nodes(left, right),
        _nodes(top, bottom),
        surface,
        fill_type=contourpy.FillType.ChunkCombinedOffsetOffset,
    ).filled(0, np.inf)
    (points,), (ring_starts,), (polygon_starts,) = contours
    points = points.clip((left, top), (right, bottom))  # Rounding may leave the edge by a hair.
    rings: Any = shapely.linearrings(points, indices=_owners(ring_starts))
    polygons: Any = shapely.polygons(rings, indices=_owners(polygon_starts))
    shape = MultiPolygon(polygons.tolist())
    return shape if shape.is_valid else _polygonal(shapely.make_valid(shape))


def _with_margin(indices: npt.NDArray[np.intp], size: int) -> tuple[int, int]:
    """The half-open range of sorted indices, one wider on both sides where there is room."""
    return max(int(indices[0]) - 1, 0), min(int(indices[-1]) + 2, size)


def _nodes(start: int, stop: int) -> npt.NDArray[np.float64]:
    """The centres of the cells [start, stop), between the outer edges of the first and last."""
    return np.concatenate([[start], np.arange(start, stop) + 0.5, [stop]])


def _owners(starts: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    """The group of each member, from where the groups start and the last one ends."""
    sizes = starts[1:] - starts[:-1]
    return np.repeat(np.arange(len(sizes)), sizes)

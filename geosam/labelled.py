"""Labelled polygons as people have them: read, named by class and laid on a raster."""

from pathlib import Path

import geopandas
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geosam.errors import LabelError
from tiles import Frame, ProjectionError

NO_CLASS = "-"


def read_polygons(source: str | Path | geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """A table of polygons with a known CRS.

    Raises:
        LabelError: it cannot be read, has several layers with geometries, or no CRS.
    """
    if isinstance(source, geopandas.GeoDataFrame):
        table, name = source, "Polygons"
    else:
        name = str(source)
        try:
            layers = [layer for layer, kind in pyogrio.list_layers(source) if kind is not None]
            if len(layers) != 1:
                raise LabelError(
                    f"{name}: {len(layers)} layers with geometries (expected 1). Write the "
                    "polygons to a file of their own."
                )
            table = pyogrio.read_dataframe(source, layer=layers[0])
        except (DataSourceError, DataLayerError) as error:
            raise LabelError(f"{name}: {error} (expected a readable vector layer).") from error
    if table.crs is None:
        raise LabelError(f"{name}: no CRS (expected to know where they lie). Set it.")
    return table


def kinds_of(
    table: geopandas.GeoDataFrame, class_column: str | None, kind: str | None = None
) -> list[str]:
    """The class of each row.

    Raises:
        LabelError: there is no such column.
    """
    if class_column is None:
        return [kind or NO_CLASS] * len(table)
    if class_column not in table.columns:
        raise LabelError(
            f"Polygons: no column {class_column!r} (expected it to hold their class). There are: "
            f"{', '.join(map(str, table.columns.drop(table.geometry.name)))}."
        )
    return [NO_CLASS if cell is None or cell != cell else str(cell) for cell in table[class_column]]


def on_raster(
    geometry: BaseGeometry | None, crs: CRS, frame: Frame, *, smallest_px: float
) -> tuple[Polygon | MultiPolygon | None, str]:
    """A polygon in px of a raster, and what is to be said of it.

    Args:
        geometry: in `crs`.
        crs: of the geometry.
        frame: of the raster.
        smallest_px: area below which a polygon is no use, px.

    Returns:
        The polygon, cut to the raster, or None if it is no use; and "no polygon", "invalid" (rings
        that cross), "off the raster", "too small", "cut" (part of it is off the raster) or "".
    """
    if not isinstance(geometry, Polygon | MultiPolygon) or geometry.is_empty:
        return None, "no polygon"
    try:
        shape = shapely.transform(shapely.force_2d(geometry), lambda xy: frame.to_pixel(xy, crs))
    except ProjectionError:
        return None, "off the raster"
    if not shape.is_valid:
        return None, "invalid"
    note = ""
    height, width = frame.shape
    whole = shapely.box(0, 0, width, height)
    if not whole.covers(shape):
        parts = shapely.get_parts(shapely.get_parts(shape & whole))
        areas = [part for part in parts if isinstance(part, Polygon) and part.area > 0]
        if not areas:
            return None, "off the raster"
        shape, note = MultiPolygon(areas) if len(areas) > 1 else areas[0], "cut"
    return (None, "too small") if shape.area < smallest_px else (shape, note)

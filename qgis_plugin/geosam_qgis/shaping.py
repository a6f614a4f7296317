"""How an outline is to be drawn: what the engine is asked for, and what QGIS does to the answer."""

from collections import namedtuple

from qgis.core import QgsGeometry, QgsPointXY, QgsWkbTypes

TINY_HOLE_PX = 16  # smaller holes are filled unless another limit is set: mostly single dark pixels
STEPS, CORNER_DEG = 200, 30  # of squaring: rounds, and how far off a corner may be


class Shape(namedtuple("Shape", "simplify_m min_area_m2 holes_m2 square")):
    """Wishes for an outline.

    Attributes:
        simplify_m: how far it may move to get simpler, or None: by itself.
        min_area_m2: smaller parts are left out.
        holes_m2: smaller holes are filled; None: those of a few pixels.
        square: whether corners that are nearly right angles become so.
    """

    def wishes(self):
        """Those that the engine fulfils, as parameters of a request."""
        return {"simplify_m": self.simplify_m, "min_area_m2": self.min_area_m2}

    def drawn(self, polygon, pixel_m2):
        """The engine's polygon with a QgsGeometry, finished, and its area.

        Args:
            polygon: as the protocol has it.
            pixel_m2: area of a pixel of the raster.

        Returns:
            A copy of `polygon`, whose `geometry` is a QgsGeometry in the raster's CRS, or None.
        """
        geometry = as_geometry(polygon["geometry"])
        if geometry is None:
            return dict(polygon, geometry=None)
        given = geometry.area()
        m2 = (
            polygon["area_m2"] / given if given and polygon["area_m2"] else 1.0
        )  # a unit of the CRS
        limit_m2 = TINY_HOLE_PX * pixel_m2 if self.holes_m2 is None else self.holes_m2
        if limit_m2 > 0:
            geometry = geometry.removeInteriorRings(limit_m2 / m2)
        if self.square:
            squared = geometry.orthogonalize(1e-8, STEPS, CORNER_DEG)
            if not squared.isEmpty() and squared.isGeosValid():
                geometry = squared
        return dict(polygon, geometry=geometry, area_m2=geometry.area() * m2)


def as_geometry(geojson):
    """A QgsGeometry of a GeoJSON polygon or multi polygon; None of None."""
    if geojson is None:
        return None
    parts = geojson["coordinates"]
    if geojson["type"] == "Polygon":
        parts = [parts]
    return QgsGeometry.fromMultiPolygonXY(
        [[[QgsPointXY(x, y) for x, y in ring] for ring in part] for part in parts]
    )


def as_geojson(geometry):
    """A GeoJSON multi polygon of a polygonal QgsGeometry."""
    geometry = QgsGeometry(geometry)
    if not QgsWkbTypes.isMultiType(geometry.wkbType()):
        geometry.convertToMultiType()
    return {
        "type": "MultiPolygon",
        "coordinates": [
            [[[point.x(), point.y()] for point in ring] for ring in part]
            for part in geometry.asMultiPolygon()
        ],
    }

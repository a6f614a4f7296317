"""Where something is to be done: what the map shows, or the polygons that are selected."""

from qgis.core import QgsCoordinateTransform, QgsGeometry, QgsPointXY, QgsProject

from .image import crs_name
from .outlines import POLYGON
from .shaping import as_geojson
from .words import tr


class NoArea(Exception):
    """Nothing says where; the message says what to do."""


def area_given(scope, iface):
    """An area in the map's CRS, as parameters of a request; none for the whole raster.

    Args:
        scope: "view", "selection" (of the active layer) or "whole".
        iface: QGIS's window.

    Raises:
        NoArea: no polygons are selected.
    """
    if scope == "whole":
        return {}
    settings = iface.mapCanvas().mapSettings()
    if scope == "view":
        area = _shown(settings)
    else:
        area = _selected(iface.activeLayer(), settings.destinationCrs())
    return {"area": as_geojson(area), "crs": crs_name(settings.destinationCrs())}


def _shown(settings):
    """What a map shows; it may be turned."""
    corners = settings.visiblePolygon()
    ring = [QgsPointXY(corner.x(), corner.y()) for corner in corners]
    return QgsGeometry.fromPolygonXY([[*ring, ring[0]]])


def _selected(layer, crs):
    chosen = layer.selectedFeatures() if hasattr(layer, "selectedFeatures") else []
    area = QgsGeometry.unaryUnion([feature.geometry() for feature in chosen])
    if area.isEmpty() or area.type() != POLYGON:
        raise NoArea(tr("Select polygons in the active layer, or choose another extent."))
    area.transform(QgsCoordinateTransform(layer.crs(), crs, QgsProject.instance()))
    return area

"""The features of a layer as prompts: points on an object, a box round it, or its rough outline."""

from qgis.core import QgsFeatureRequest, QgsGeometry, QgsVectorLayerFeatureSource, QgsWkbTypes

from .shaping import as_geojson
from .words import tr

KINDS = QgsWkbTypes.GeometryType


def count_of(layer, only_selected):
    """How many features would be asked about."""
    return layer.selectedFeatureCount() if only_selected else layer.featureCount()


def prompts_of(layer, only_selected):
    """Each feature as (id, prompt, why), the prompt as the engine takes it, in the layer's CRS.

    The layer is looked at as it is now, whatever becomes of it later. A feature that can be no
    prompt gives None, and why.
    """
    request = QgsFeatureRequest().setNoAttributes()
    if only_selected:
        request.setFilterFids(layer.selectedFeatureIds())
    return _prompts(QgsVectorLayerFeatureSource(layer), request)


def _prompts(source, request):
    for feature in source.getFeatures(request):
        name, parts = str(feature.id()), _parts(feature.geometry())
        if parts is None:
            yield name, None, tr("no point and no polygon")
        else:
            yield name, {"id": name, **parts}, ""


def _parts(geometry):
    if geometry.isNull() or geometry.isEmpty():
        return None
    if geometry.type() == KINDS.PointGeometry:
        return {"points": [[point.x(), point.y()] for point in geometry.vertices()]}
    if geometry.type() != KINDS.PolygonGeometry:
        return None
    if QgsWkbTypes.isCurvedType(geometry.wkbType()):
        geometry = QgsGeometry(geometry.constGet().segmentize())
    bounds = geometry.boundingBox()
    if geometry.isGeosEqual(QgsGeometry.fromRect(bounds)):
        return {"box": [bounds.xMinimum(), bounds.yMinimum(), bounds.xMaximum(), bounds.yMaximum()]}
    return {"mask": as_geojson(geometry)}

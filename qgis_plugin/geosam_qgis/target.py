"""The layer that polygons are saved to: a new GeoPackage, or any polygon layer that can be edited."""

import datetime
import os

from qgis.core import (
    NULL,
    QgsCoordinateTransform,
    QgsFeature,
    QgsField,
    QgsFields,
    QgsProject,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QVariant

# What a saved polygon says of itself: field, kind, length, and the name it has in the engine's answer.
FIELDS = (
    ("class", QVariant.String, 80),
    ("score", QVariant.Double, 0),
    ("area_m2", QVariant.Double, 0),
    ("model", QVariant.String, 80),
    ("source", QVariant.String, 254),
    ("status", QVariant.String, 20),
    ("saved_at", QVariant.String, 32),
)


class NotSaved(Exception):
    """A polygon that could not be saved; the message says why."""


def new_geopackage(path, crs, name="objects"):
    """A new GeoPackage with one polygon layer of our fields, added to nothing yet.

    Raises:
        NotSaved: the file exists, or cannot be written.
    """
    if os.path.exists(path):
        raise NotSaved("{} exists already. Choose another name, or open it as a layer.".format(path))
    fields = QgsFields()
    for field, kind, length in FIELDS:
        fields.append(QgsField(field, kind, len=length))
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName, options.layerName = "GPKG", name
    writer = QgsVectorFileWriter.create(
        path, fields, QgsWkbTypes.Type.MultiPolygon, crs,
        QgsProject.instance().transformContext(), options,
    )  # fmt: skip
    failed, message = writer.hasError(), writer.errorMessage()
    del writer  # which closes the file
    if failed != QgsVectorFileWriter.WriterError.NoError:
        raise NotSaved("{} cannot be written: {}".format(path, message))
    return QgsVectorLayer("{}|layername={}".format(path, name), name, "ogr")


def mapping_of(layer):
    """Which of our values go to which field of a layer: by equal names, whatever their case."""
    names = {field.name().lower(): index for index, field in enumerate(layer.fields())}
    return {field: names[field] for field, _, _ in FIELDS if field in names}


def save(layer, geometry, crs, values, mapping=None):
    """Put one polygon into a layer, as one step that Ctrl+Z takes back.

    Args:
        layer: a polygon layer; it is put into editing if it is not.
        geometry: in `crs`.
        crs: a QgsCoordinateReferenceSystem.
        values: by our field names; what the layer has no field for is left out.
        mapping: our field names to indices of the layer's fields; None: see `mapping_of`.

    Raises:
        NotSaved: the layer takes no polygon, or not this one.
    """
    if layer is None or layer.geometryType() != QgsWkbTypes.GeometryType.PolygonGeometry:
        raise NotSaved("Choose a polygon layer to save to.")
    if not layer.isEditable() and not layer.startEditing():
        raise NotSaved("The layer {} cannot be edited.".format(layer.name()))
    moved = type(geometry)(geometry)
    moved.transform(QgsCoordinateTransform(crs, layer.crs(), QgsProject.instance()))
    if QgsWkbTypes.isMultiType(layer.wkbType()):
        moved.convertToMultiType()
    elif moved.isMultipart():
        parts = moved.asGeometryCollection()
        if len(parts) > 1:
            raise NotSaved(
                "The object has {} parts and the layer {} takes single polygons. Save to a layer "
                "of multi polygons.".format(len(parts), layer.name())
            )
        moved = parts[0]
    feature = QgsFeature(layer.fields())
    feature.setGeometry(moved)
    values = {"saved_at": now(), **values}
    for field, index in (mapping_of(layer) if mapping is None else mapping).items():
        value = values.get(field)
        feature.setAttribute(index, NULL if value is None else value)
    layer.beginEditCommand("geosam: save an outline")
    if not layer.addFeature(feature):
        layer.destroyEditCommand()
        raise NotSaved("The layer {} did not take the polygon.".format(layer.name()))
    layer.endEditCommand()
    return feature


def now():
    """The time of saving, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

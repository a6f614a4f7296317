"""The layer that polygons are saved to: a new GeoPackage, or any polygon layer."""

import datetime
import json
import os

from qgis.core import (
    NULL,
    QgsCoordinateTransform,
    QgsCsException,
    QgsField,
    QgsFields,
    QgsGeometry,
    QgsProject,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsVectorLayerUtils,
    QgsWkbTypes,
)

from .compat import REAL, TEXT
from .words import tr

# What a saved polygon says of itself: field, kind, length.
FIELDS = (
    ("class", TEXT, 80),
    ("score", REAL, 0),
    ("area_m2", REAL, 0),
    ("model", TEXT, 80),
    ("source", TEXT, 254),
    ("status", TEXT, 20),
    ("prompts", TEXT, 0),
    ("prompt_id", TEXT, 80),
    ("saved_at", TEXT, 32),
)
CHOSEN = "geosam/fields"  # where a layer keeps which of its fields take which value


class NotSaved(Exception):
    """A polygon that could not be saved; the message says why."""


def new_geopackage(path, crs, name="objects"):
    """A new GeoPackage with one polygon layer of our fields, added to nothing yet.

    Raises:
        NotSaved: the file exists, or cannot be written.
    """
    if os.path.exists(path):
        raise NotSaved(
            tr("{} exists already. Choose another name, or open it as a layer.").format(path)
        )
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
        raise NotSaved(tr("{} cannot be written: {}").format(path, message))
    return QgsVectorLayer(f"{path}|layername={name}", name, "ogr")


def mapping_of(layer):
    """Which of our values go to which field of a layer, by names: as chosen, or by equal names."""
    names = {field.name().lower(): field.name() for field in layer.fields()}
    chosen = layer.customProperty(CHOSEN)
    if chosen:
        return {ours: to for ours, to in json.loads(chosen).items() if to.lower() in names}
    return {ours: names[ours] for ours, _, _ in FIELDS if ours in names}


def choose_fields(layer, mapping):
    """Keep with a layer which of our values go to which of its fields."""
    layer.setCustomProperty(CHOSEN, json.dumps(mapping))


def save(layer, geometry, crs, values):
    """Put one polygon into a layer, as one step that Ctrl+Z takes back; see `save_all`.

    Raises:
        NotSaved: the layer takes no polygon, or not this one.
    """

    def refuse(_number, why):
        raise why

    for _ in save_all(layer, [(geometry, values)], crs, tr("Save an outline"), refuse):
        pass


def save_all(layer, outlines, crs, title, refuse):
    """Put polygons into a layer, as one step that Ctrl+Z takes back; a generator, to be run out.

    If it is closed before its end, or raises, the layer is as it was.

    Args:
        layer: a polygon layer; it is put into editing if it is not.
        outlines: geometries in `crs`, each with its values by our field names; what the layer has
            no field for is left out.
        crs: a QgsCoordinateReferenceSystem.
        title: what the step is called.
        refuse: called with the number of a polygon that the layer cannot take, and the NotSaved.

    Raises:
        NotSaved: the layer takes no polygons.
    """
    check(layer)
    mapping, features = mapping_of(layer), []
    for number, (geometry, values) in enumerate(outlines):
        try:
            features.append(_feature(layer, geometry, crs, {"saved_at": now(), **values}, mapping))
        except NotSaved as why:
            refuse(number, why)
        yield
    if not features:
        return
    if not layer.isEditable() and not layer.startEditing():
        raise NotSaved(tr("The layer {} cannot be edited.").format(layer.name()))
    layer.beginEditCommand(title)
    ended = False
    try:
        for feature in features:
            if not layer.addFeature(feature):
                raise NotSaved(tr("The layer {} did not take the polygon.").format(layer.name()))
            yield
        ended = True
    finally:
        if ended:
            layer.endEditCommand()
        else:
            layer.destroyEditCommand()


def check(layer):
    """Refuse what is no layer of polygons.

    Raises:
        NotSaved: it is none.
    """
    if layer is None or layer.geometryType() != QgsWkbTypes.GeometryType.PolygonGeometry:
        raise NotSaved(tr("Choose a polygon layer to save to, or make a new one."))


def _feature(layer, geometry, crs, values, mapping):
    moved = _as_layer_takes_it(layer, geometry, crs)
    attributes = {}
    for ours, theirs in mapping.items():
        index = layer.fields().lookupField(theirs)
        attributes[index] = _fitted(layer.fields().at(index), values.get(ours))
    return QgsVectorLayerUtils.createFeature(layer, moved, attributes)


def _as_layer_takes_it(layer, geometry, crs):
    moved = QgsGeometry(geometry)
    try:
        moved.transform(QgsCoordinateTransform(crs, layer.crs(), QgsProject.instance()))
    except QgsCsException as why:
        raise NotSaved(
            tr("The outline has no place in the CRS of {}.").format(layer.name())
        ) from why
    fitting = moved.coerceToType(layer.wkbType())
    if len(fitting) != 1:
        raise NotSaved(
            tr(
                "The object has {} parts and the layer {} takes single polygons. Save to a layer "
                "of multi polygons, or leave out small parts."
            ).format(len(fitting), layer.name())
        )
    return fitting[0]


def _fitted(field, value):
    """A value as a field takes it."""
    if value is None:
        return NULL
    try:
        return field.convertCompatible(value)
    except ValueError as why:
        raise NotSaved(
            tr("The field {} cannot hold {!r} ({}). Choose another in Fields...").format(
                field.name(), value, why
            )
        ) from why


def now():
    """The time of saving, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

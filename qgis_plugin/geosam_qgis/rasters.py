"""From a raster layer of QGIS to what the engine opens, or to a clear word why it cannot."""

import os

from qgis.core import QgsMapLayer, QgsRasterLayer

NO_FILE = (
    "This layer has no file of its own ({}). Export the part that you need with "
    "Layer > Save As..., as GeoTIFF, and use that."
)


class NoSource(Exception):
    """A layer that the engine cannot open; the message says what to do."""


def source_of(layer):
    """What the engine opens for a raster layer: a path or a GDAL name.

    Raises:
        NoSource: it has none, or no place on the ground.
    """
    if not isinstance(layer, QgsRasterLayer) or layer.type() != QgsMapLayer.LayerType.RasterLayer:
        raise NoSource("Choose a raster layer.")
    if not layer.isValid():
        raise NoSource("The layer {} cannot be read. Check its source.".format(layer.name()))
    if layer.providerType() != "gdal":
        raise NoSource(NO_FILE.format(layer.providerType().upper()))
    source = layer.dataProvider().dataSourceUri()
    if not layer.crs().isValid():
        raise NoSource(
            "The layer {} has no CRS. Assign one to the file, with Raster > Projections > Assign "
            "Projection...".format(layer.name())
        )
    path = source.split("|")[0]
    return os.path.abspath(path) if os.path.exists(path) else path


def differs_from_file(layer, engine_crs):
    """Whether QGIS shows the layer in another CRS than the file says, which would misplace it."""
    return layer.crs() != engine_crs

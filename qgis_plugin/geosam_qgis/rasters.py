"""From a raster layer of QGIS to what the engine opens, or to a clear word why it cannot."""

import os

from qgis.core import (
    QgsApplication,
    QgsCoordinateTransform,
    QgsMultiBandColorRenderer,
    QgsPalettedRasterRenderer,
    QgsProject,
    QgsRasterFileWriter,
    QgsRasterFileWriterTask,
    QgsRasterLayer,
    QgsRasterPipe,
)

from .words import tr

LARGEST_PX = 4096  # side of an export; servers dislike more


class NoSource(Exception):
    """A layer that the engine cannot open; the message says what to do."""


class NoFile(NoSource):
    """A layer whose pixels come from a server: what the map shows of it can be exported."""


def source_of(layer):
    """What the engine opens for a raster layer: a path or a GDAL name.

    Raises:
        NoFile: it has none.
        NoSource: it cannot be read, or has no place on the ground.
    """
    if not isinstance(layer, QgsRasterLayer):
        raise NoSource(tr("Choose a raster layer."))
    if not layer.isValid():
        raise NoSource(tr("The layer {} cannot be read. Check its source.").format(layer.name()))
    if layer.providerType() != "gdal":
        raise NoFile(
            tr(
                "{} comes from a server ({}) and has no file. Export what the map shows as a "
                "GeoTIFF and work on that; zoom in first for finer pixels."
            ).format(layer.name(), layer.providerType().upper())
        )
    if not layer.crs().isValid():
        raise NoSource(
            tr(
                "The layer {} has no CRS. Assign one to the file, with Raster > Projections > "
                "Assign Projection."
            ).format(layer.name())
        )
    path = layer.dataProvider().dataSourceUri().split("|")[0]
    return os.path.abspath(path) if os.path.exists(path) else path


def bands_of(layer):
    """The bands that QGIS shows of a raster layer, one or three; None leaves it to the engine.

    Raises:
        NoSource: two are shown, and nobody knows the third.
    """
    renderer = layer.renderer()
    if isinstance(renderer, QgsMultiBandColorRenderer):
        bands = [renderer.redBand(), renderer.greenBand(), renderer.blueBand()]
        shown = [band for band in bands if band > 0]
        if len(shown) == 2:
            raise NoSource(
                tr("{} is shown in two bands. Choose one or three in its symbology.").format(
                    layer.name()
                )
            )
        return shown or None
    if renderer is None or isinstance(renderer, QgsPalettedRasterRenderer):
        return None
    bands = renderer.usesBands()
    return bands if len(bands) == 1 else None


def export(layer, settings, path, done, failed):
    """Write what the map shows of a layer to a GeoTIFF, in the background.

    Args:
        layer: a raster layer.
        settings: the map's QgsMapSettings.
        path: a file that does not exist.
        done: called with the path.
        failed: called with a message.
    """
    if os.path.exists(path):
        failed(tr("{} exists already. Choose another name.").format(path))
        return
    to_layer = QgsCoordinateTransform(settings.destinationCrs(), layer.crs(), QgsProject.instance())
    extent = to_layer.transformBoundingBox(settings.visibleExtent()).intersect(layer.extent())
    if extent.isEmpty():
        failed(tr("The map shows nothing of {}.").format(layer.name()))
        return
    wide, high = settings.outputSize().width(), settings.outputSize().height()
    step = max(extent.width() / wide, extent.height() / high)
    step = max(step, extent.width() / LARGEST_PX, extent.height() / LARGEST_PX)
    columns, rows = max(1, round(extent.width() / step)), max(1, round(extent.height() / step))
    pipe = QgsRasterPipe()
    pipe.set(layer.dataProvider().clone())
    pipe.set(layer.renderer().clone())
    writer = QgsRasterFileWriter(path)
    writer.setOutputFormat("GTiff")
    task = QgsRasterFileWriterTask(
        writer, pipe, columns, rows, extent, layer.crs(),
        QgsProject.instance().transformContext(),
    )  # fmt: skip
    task.writeComplete.connect(lambda _path: done(path))
    task.errorOccurred.connect(
        lambda _error: failed(tr("{} could not be exported.").format(layer.name()))
    )
    QgsApplication.taskManager().addTask(task)

"""Raster layers that have no file, or no place."""

from pathlib import Path

import pytest
from geosam_qgis.rasters import NoFile, NoSource, bands_of, export, source_of
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsMapSettings,
    QgsMultiBandColorRenderer,
    QgsPalettedRasterRenderer,
    QgsRasterLayer,
    QgsRectangle,
    QgsSingleBandGrayRenderer,
    QgsSingleBandPseudoColorRenderer,
)
from qgis.PyQt.QtCore import QSize

IMAGE = Path(__file__).parents[1] / "geosam" / "demo" / "OSBS_029.tif"
WEB = QgsCoordinateReferenceSystem("EPSG:3857")


@pytest.fixture
def served(qgis_app, tmp_path):
    """Tiles of one colour, as a server has them, in files."""
    picture = gdal.GetDriverByName("MEM").Create("", 256, 256, 3)
    for band, value in enumerate((10, 120, 200), start=1):
        picture.GetRasterBand(band).Fill(value)
    gdal.GetDriverByName("PNG").CreateCopy(str(tmp_path / "tile.png"), picture)
    uri = f"type=xyz&zmin=0&zmax=19&url=file://{tmp_path}/tile.png"
    layer = QgsRasterLayer(uri, "tiles", "wms")
    assert layer.isValid()
    return layer


def view(extent, crs=WEB):
    settings = QgsMapSettings()
    settings.setDestinationCrs(crs)
    settings.setExtent(extent)
    settings.setOutputSize(QSize(300, 200))
    return settings


def test_a_file_is_named_by_its_path(qgis_app):
    assert source_of(QgsRasterLayer(str(IMAGE), "aerial")) == str(IMAGE)


def test_a_layer_from_a_server_is_refused_with_advice(served):
    with pytest.raises(NoFile, match="Export what the map shows"):
        source_of(served)


def test_a_layer_without_a_place_is_refused(qgis_app, tmp_path):
    path = str(tmp_path / "nowhere.tif")
    gdal.GetDriverByName("GTiff").Create(path, 8, 8, 3)
    layer = QgsRasterLayer(path, "nowhere")
    layer.setCrs(QgsCoordinateReferenceSystem())
    with pytest.raises(NoSource, match="has no CRS"):
        source_of(layer)


def test_what_the_map_shows_is_exported_at_the_maps_resolution(qtbot, served, tmp_path):
    path, heard = str(tmp_path / "export.tif"), []
    export(served, view(QgsRectangle(0, 0, 3000, 2000)), path, heard.append, heard.append)
    qtbot.waitUntil(lambda: bool(heard), timeout=20000)
    assert heard == [path]
    file = gdal.Open(path)
    assert (file.RasterXSize, file.RasterYSize) == (300, 200)
    assert file.GetGeoTransform() == pytest.approx((0, 10, 0, 2000, 0, -10))
    assert [file.GetRasterBand(n).ReadAsArray()[100, 150] for n in (1, 2, 3)] == [10, 120, 200]
    assert source_of(QgsRasterLayer(path, "export")) == path


def test_an_export_overwrites_nothing(served, tmp_path):
    path, heard = tmp_path / "export.tif", []
    path.write_text("mine")
    export(served, view(QgsRectangle(0, 0, 10, 10)), str(path), heard.append, heard.append)
    assert "exists already" in heard[0] and path.read_text() == "mine"


def test_the_bands_that_qgis_shows(qgis_app, tmp_path):
    path = str(tmp_path / "five.tif")
    gdal.GetDriverByName("GTiff").Create(path, 8, 8, 5)
    layer = QgsRasterLayer(path, "five")
    data = layer.dataProvider()

    def shown(renderer):
        layer.setRenderer(renderer)
        return bands_of(layer)

    assert bands_of(layer) == [1, 2, 3]
    assert shown(QgsMultiBandColorRenderer(data, 5, 3, 2)) == [5, 3, 2]
    assert shown(QgsMultiBandColorRenderer(data, 4, -1, -1)) == [4]
    assert shown(QgsSingleBandGrayRenderer(data, 4)) == [4]
    assert shown(QgsSingleBandPseudoColorRenderer(data, 2)) == [2]
    assert shown(QgsPalettedRasterRenderer(data, 3, [])) is None
    with pytest.raises(NoSource, match="two bands"):
        shown(QgsMultiBandColorRenderer(data, 4, -1, 1))

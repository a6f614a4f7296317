"""With the real engine: rasters of all kinds, placed right. Its command is in GEOSAM_ENGINE."""

import os
from pathlib import Path

import numpy as np
import pytest
from geosam_qgis.discovery import engine_command
from geosam_qgis.engine import Engine
from geosam_qgis.image import Image
from geosam_qgis.rasters import source_of
from geosam_qgis.shaping import as_geometry
from osgeo import gdal
from qgis.core import (
    QgsMultiBandColorRenderer,
    QgsPointXY,
    QgsProviderRegistry,
    QgsRasterLayer,
)

IMAGE = Path(__file__).parents[1] / "geosam" / "demo" / "OSBS_029.tif"
MINE = Path(__file__).parents[1] / ".venv" / "bin" / "geosam"
PIXEL = (336, 115)  # a crown: column and row
TILES_REPEAT = 1536  # px: where tiles start at the scales that nano is asked at

if "GEOSAM_ENGINE" not in os.environ and MINE.exists():
    os.environ["GEOSAM_ENGINE"] = str(MINE)
pytestmark = pytest.mark.skipif(
    engine_command() is None, reason="no engine: set GEOSAM_ENGINE to the geosam command"
)


@pytest.fixture(scope="module")
def engine(qapp, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield from running()


def running():
    made = Engine(engine_command())
    made.start()
    yield made
    made.close()


def outline(qtbot, engine, source, renderer=None):
    """The outline of the crown in a raster, and where the crown's pixel is, in its CRS."""
    layer = QgsRasterLayer(str(source), "raster")
    assert layer.isValid()
    if renderer is not None:
        layer.setRenderer(renderer(layer.dataProvider()))
    image = Image()
    image.engine = engine
    heard = []
    image.opened.connect(heard.append)
    image.shut.connect(heard.append)
    image.open(layer, "nano")
    qtbot.waitUntil(lambda: bool(heard), timeout=120000)
    assert image.is_open, heard
    turn = gdal.Open(str(source)).GetGeoTransform()
    x, y = gdal.ApplyGeoTransform(turn, *PIXEL)
    answers = []
    prompt = {"id": "crown", "points": [[x, y]]}
    image.ask("segment", {"prompts": [prompt]}, lambda answer: answers.extend(answer["polygons"]))
    qtbot.waitUntil(lambda: bool(answers), timeout=120000)
    image.close()
    return as_geometry(answers[0]["geometry"]), QgsPointXY(x, y), layer


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "aerial.tif"
    path.write_bytes(IMAGE.read_bytes())
    return path


@pytest.fixture
def upright(qtbot, engine, raster):
    return outline(qtbot, engine, raster)[0]


def test_a_rotated_raster_gives_the_outline_rotated(qtbot, engine, raster, upright, tmp_path):
    turned = tmp_path / "turned.tif"
    gdal.Translate(str(turned), str(raster))
    file = gdal.Open(str(turned), gdal.GA_Update)
    left, width, _, top, _, height = file.GetGeoTransform()
    sine, cosine = 0.5, 3**0.5 / 2
    turn = np.array([[width * cosine, -height * sine], [width * sine, height * cosine]])
    # The corner that is nearest to the upright one's and has its tiles, so the model sees the same.
    origin = np.array([-left / width, -top / height])  # pixel at the origin of the CRS
    away = np.linalg.solve(turn, [-left, -top]) - origin
    x, y = -turn @ (origin + np.rint(away / TILES_REPEAT) * TILES_REPEAT)
    file.SetGeoTransform((x, *turn[0], y, *turn[1]))
    file = None
    found, at, layer = outline(qtbot, engine, turned)
    assert found.contains(at) and layer.extent().contains(at)
    upright.translate(-left, -top)
    upright.rotate(-30, QgsPointXY(0, 0))  # clockwise is positive
    upright.translate(x, y)
    common = found.intersection(upright).area()
    assert common / found.combine(upright).area() > 0.95


@pytest.mark.parametrize("kind", ["vrt", "gpkg"])
def test_virtual_rasters_and_geopackages_give_the_same(
    qtbot, engine, raster, upright, tmp_path, kind
):
    other = tmp_path / ("other." + kind)
    options = {"vrt": {}, "gpkg": {"creationOptions": ["TILE_FORMAT=PNG"]}}[kind]
    gdal.Translate(str(other), str(raster), format=kind.upper(), **options)
    found, at, _ = outline(qtbot, engine, other)
    common = found.intersection(upright).area()
    assert found.contains(at) and common / found.combine(upright).area() > 0.95


def test_a_virtual_mosaic_gives_the_same(qtbot, engine, raster, upright, tmp_path):
    halves = [str(tmp_path / name) for name in ("west.tif", "east.tif")]
    for half, left in zip(halves, (0, 320)):  # the crown lies on the seam
        gdal.Translate(half, str(raster), srcWin=[left, 0, 320 if left == 0 else 80, 400])
    mosaic = tmp_path / "mosaic.vrt"
    gdal.BuildVRT(str(mosaic), halves)
    found, at, _ = outline(qtbot, engine, mosaic)
    assert found.contains(at) and found.equals(upright)


def test_each_table_of_a_geopackage_is_a_raster_of_its_own(
    qtbot, engine, raster, upright, tmp_path
):
    file, blank = str(tmp_path / "two.gpkg"), str(tmp_path / "blank.tif")
    gdal.Translate(blank, str(raster), scaleParams=[[0, 255, 128, 128]] * 3)
    for table, source in (("blank", blank), ("aerial", str(raster))):
        gdal.Translate(
            file, source, format="GPKG",
            creationOptions=["TILE_FORMAT=PNG", f"RASTER_TABLE={table}", "APPEND_SUBDATASET=YES"],
        )  # fmt: skip
    tables = QgsProviderRegistry.instance().querySublayers(file)
    assert sorted(table.name() for table in tables) == ["aerial", "blank"]
    sources = {table.name(): table.uri() for table in tables}
    found, at, _ = outline(qtbot, engine, sources["aerial"])
    common = found.intersection(upright).area()
    assert found.contains(at) and common / found.combine(upright).area() > 0.95
    assert source_of(QgsRasterLayer(sources["blank"], "blank")) != source_of(
        QgsRasterLayer(sources["aerial"], "aerial")
    )
    other, _, _ = outline(qtbot, engine, sources["blank"])
    assert other is None or not other.equals(found)


def test_the_bands_that_qgis_shows_are_looked_at(qtbot, engine, raster, upright, tmp_path):
    turned = tmp_path / "turned.tif"
    gdal.Translate(str(turned), str(raster), bandList=[3, 1, 2])
    found, _, _ = outline(
        qtbot, engine, turned, lambda data: QgsMultiBandColorRenderer(data, 2, 3, 1)
    )
    assert found.equals(upright)
    other, _, _ = outline(qtbot, engine, turned)  # QGIS shows the first three, as they come
    assert other is None or not other.equals(upright)
    stores = [path.name.split(".", 3)[3] for path in tmp_path.glob("turned.tif.*.zarr")]
    assert sorted(stores) == ["bands-1-2-3.features.zarr", "features.zarr"]


def test_a_name_with_spaces_and_accents(qtbot, engine, raster, upright, tmp_path):
    other = tmp_path / "Wald über München.tif"
    other.write_bytes(raster.read_bytes())
    found, _, _ = outline(qtbot, engine, other)
    assert found.equals(upright)

"""With the real engine: rasters of all kinds, placed right. Its command is in GEOSAM_ENGINE."""

import os
from pathlib import Path

import numpy as np
import pytest
from geosam_qgis.discovery import engine_command
from geosam_qgis.engine import Engine
from geosam_qgis.image import Image
from geosam_qgis.shaping import as_geometry
from osgeo import gdal
from qgis.core import QgsPointXY, QgsRasterLayer

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
def engine(qapp):
    made = Engine(engine_command())
    made.start()
    yield made
    made.close()


def outline(qtbot, engine, source):
    """The outline of the crown in a raster, and where the crown's pixel is, in its CRS."""
    layer = QgsRasterLayer(str(source), "raster")
    assert layer.isValid()
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


def test_a_name_with_spaces_and_accents(qtbot, engine, raster, upright, tmp_path):
    other = tmp_path / "Wald über München.tif"
    other.write_bytes(raster.read_bytes())
    found, _, _ = outline(qtbot, engine, other)
    assert found.equals(upright)

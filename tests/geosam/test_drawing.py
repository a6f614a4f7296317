import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image
from pyproj import CRS
from shapely import MultiPolygon, Point, Polygon, box

from geosam import drawing
from geosam.errors import OutputError
from geosam.prompts import Prompt, PromptSet
from tiles.errors import ProjectionError
from tiles.frame import Frame

UTM = CRS("EPSG:32633")
GREY = (100, 100, 100)


def frame(height, width):
    return Frame((height, width), Affine(1, 0, 516_096, 0, -1, 5_160_960), UTM)


def in_pixels(place, *shapes):
    shapes = [s if s is None else shapely.transform(s, place.to_world) for s in shapes]
    return geopandas.GeoDataFrame(geometry=shapes, crs=place.crs)


def draw(folder, shapes=(), prompts=None, size=(64, 128), crs=UTM):
    """The picture of a grey image, and what it shows at a pixel of that image."""
    place = frame(*size)
    table = in_pixels(place, *shapes).to_crs(crs)
    path = folder / "preview.png"
    drawing.draw(np.full((*size, 3), 100, np.uint8), place, table, path, prompts)
    picture = np.array(Image.open(path))
    zoom = picture.shape[0] / size[0]
    return picture, lambda x, y: tuple(picture[int(y * zoom), int(x * zoom)].tolist())


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 128), (512, 1024)),
        ((1, 1), (1024, 1024)),
        ((1500, 1200), (1500, 1200)),
        ((300, 3000), (205, 2048)),
        ((1, 4000), (1, 2048)),
    ],
)
def test_the_picture_is_neither_tiny_nor_huge(tmp_path, size, expected):
    picture, _ = draw(tmp_path, size=size)
    assert picture.shape == (*expected, 3)
    assert (picture == 100).all()


def test_an_object_is_tinted_and_its_holes_and_surroundings_are_not(tmp_path):
    ring = box(10, 10, 50, 50) - box(20, 20, 40, 40)
    _, color = draw(tmp_path, [MultiPolygon([ring, box(70, 10, 90, 50)])])
    assert color(5, 5) == color(30, 30) == color(60, 30) == GREY
    assert color(15, 30) == color(80, 30) != GREY


def test_an_outline_is_bright_between_dark_halos(tmp_path):
    picture, _ = draw(tmp_path, [box(32, 16, 96, 48)])
    across = picture[256, 240:272].astype(int).sum(axis=1)
    line = int(np.argmax(np.ptp(picture[256, 240:272].astype(int), axis=1)))
    assert across[:line].min() < 200 and across[line:].min() < 200
    assert across[line] > 350
    assert abs(240 + line - 256) <= 2


def test_objects_differ_in_colour(tmp_path):
    shapes = [box(8 + 16 * n, 8, 18 + 16 * n, 56) for n in range(7)]
    _, color = draw(tmp_path, shapes)
    tints = np.array([color(13 + 16 * n, 32) for n in range(7)], int)
    between = np.abs(tints[:, None] - tints).sum(axis=2)
    assert between[~np.eye(7, dtype=bool)].min() > 15


def test_polygons_come_in_any_crs(tmp_path):
    _, color = draw(tmp_path, [box(32, 16, 96, 48)], crs="EPSG:4326")
    assert color(64, 32) != GREY
    assert color(20, 32) == color(110, 32) == GREY


def test_missing_and_far_objects_are_no_trouble(tmp_path):
    far = box(10_000, 10_000, 20_000, 20_000)
    picture, _ = draw(tmp_path, [None, far, Polygon()])
    assert (picture == 100).all()
    _, color = draw(tmp_path, [box(-10_000, -10_000, 10_000, 10_000)])
    assert color(0, 0) == color(64, 32) == color(127, 63) != GREY


def test_points_are_green_on_the_object_and_red_beside_it(tmp_path):
    place = frame(64, 128)
    xy = place.to_world([[32, 32], [96, 32]])
    _, color = draw(tmp_path, prompts=PromptSet((Prompt("a", xy, [1, 0]),)))
    for (red, green, blue), bright, dim in (
        (color(32, 32), 1, 0),
        (color(96, 32), 0, 1),
    ):
        assert (red, green, blue)[bright] > 200 > 120 > (red, green, blue)[dim]
        assert blue < 120


def test_boxes_and_masks_are_dashed(tmp_path):
    place = frame(64, 128)
    west, south, east, north = in_pixels(place, box(16, 8, 48, 56)).total_bounds
    triangle = shapely.transform(Polygon([(64, 8), (112, 8), (112, 56)]), place.to_world)
    prompts = PromptSet(
        (Prompt("box", box=(west, south, east, north)), Prompt("mask", mask=triangle)), UTM
    )
    picture, _ = draw(tmp_path, prompts=prompts)
    for row, left, right in ((8 * 8, 16 * 8, 48 * 8), (8 * 8, 64 * 8, 112 * 8)):
        edge = picture[row - 1 : row + 1, left:right].min(axis=(0, 2))
        assert 0.2 < np.mean(edge > 200) < 0.6
        assert 0.2 < np.mean(edge == 100) < 0.6


def test_prompts_come_in_any_crs(tmp_path):
    place = frame(64, 128)
    lonlat = geopandas.GeoSeries([Point(*place.to_world([[32, 32]])[0])], crs=UTM).to_crs(4326)
    prompts = PromptSet.of(points=[(lonlat[0].x, lonlat[0].y)], crs="EPSG:4326")
    _, color = draw(tmp_path, prompts=prompts)
    assert color(32, 32)[1] > 200
    with pytest.raises(ProjectionError):
        draw(tmp_path, prompts=PromptSet.of(points=[(1e9, 1e9)], crs="EPSG:4326"))


@pytest.mark.parametrize(
    "chip", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 5, 3), np.uint8)]
)
def test_only_an_image_of_the_frame_is_drawn(tmp_path, chip):
    place = frame(4, 4)
    with pytest.raises(OutputError, match=r"preview\.png: image is .*expected uint8 \(4, 4, 3\)"):
        drawing.draw(chip, place, in_pixels(place), tmp_path / "preview.png")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    place = frame(4, 4)
    chip = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(OutputError, match=r"preview\.png"):
        drawing.draw(chip, place, in_pixels(place), tmp_path / "missing" / "preview.png")

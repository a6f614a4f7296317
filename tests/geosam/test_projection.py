"""Where prompts land: the model gets the affine's pixels, whatever the CRS and the grid."""

import re

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from shapely import Polygon

from geosam.placement import to_pixels
from geosam.prompts import Prompt, PromptSet
from geosam.verbs import segment
from tests.fakes import FloodModel, write_raster
from tiles import Frame

PX = 0.05
SIZE = 128
OUTLINE = 2000  # points a side

GRIDS = {
    "north up": ("EPSG:32633", Affine(1, 0, 516_096, 0, -1, 5_160_960)),
    "south up": ("EPSG:32633", Affine(1, 0, 516_096, 0, 1, 5_160_960)),
    "rotated": (
        "EPSG:32633",
        Affine.translation(516_096, 5_160_960) @ Affine.rotation(20) @ Affine.scale(1, -1),
    ),
    "sheared": ("EPSG:32633", Affine(0.5, 0.2, 516_096, -0.1, -0.4, 5_160_960)),
    "degrees": ("EPSG:4326", Affine(1e-5, 0, 15, 0, -1.4e-5, 45)),
    "feet": ("EPSG:2263", Affine(0.5, 0, 987_000, 0, -0.5, 213_000)),
    "web mercator": ("EPSG:3857", Affine(0.3, 0, 1_670_000, 0, -0.3, 5_620_000)),
}
AWAY = {"EPSG:2263": "EPSG:32618", "EPSG:3857": "EPSG:3035"}  # a third CRS, not the usual one
SOURCES = ["the raster's", "named", "EPSG:4326", "a third"]


class Recorder(FloodModel):
    """Keeps the prompts that reach `decode`."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.prompts = []

    def decode(self, features, prompts, *, multimask):
        self.prompts += prompts
        return super().decode(features, prompts, multimask=multimask)


def prompt_crs(own, source):
    """The CRS of prompts: None stands for the raster's."""
    if source == "the raster's":
        return None
    return {"named": own, "a third": AWAY.get(own, "EPSG:3857")}.get(source, source)


def to_world(pixels, grid, crs):
    """Pixels (N, 2) to coordinates in a CRS, by the affine alone."""
    own, transform = GRIDS[grid]
    x, y = transform @ np.transpose(np.asarray(pixels, float))
    if crs is not None:
        x, y = Transformer.from_crs(own, crs, always_xy=True).transform(x, y)
    return np.column_stack([x, y])


def outline(box, count=OUTLINE):
    """Points on the four sides of a box."""
    xmin, ymin, xmax, ymax = box
    x, y = np.linspace(xmin, xmax, count), np.linspace(ymin, ymax, count)
    sides = ((x, ymin), (x, ymax), (xmin, y), (xmax, y))
    return np.concatenate([np.column_stack(np.broadcast_arrays(*side)) for side in sides])


def envelope(points):
    return np.concatenate([points.min(0), points.max(0)])


def true_pixel_box(box, crs, own, transform):
    """The envelope in pixels of a box's outline, followed at 2,000 points a side."""
    points = outline(box).T
    if crs is not None:
        points = Transformer.from_crs(crs, own, always_xy=True).transform(*points)
    return envelope(np.column_stack(~transform @ np.asarray(points)))


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    """One raster a grid; each is a single tile at scale 1 and has 128 x 128 px."""
    folder = tmp_path_factory.mktemp("grids")
    image = np.full((SIZE, SIZE), 20, np.uint8)
    return {
        name: write_raster(folder / f"{name}.tif", image, crs=crs, transform=transform)
        for name, (crs, transform) in GRIDS.items()
    }


@pytest.fixture
def reach(rasters, tmp_path):
    """The prompts that reach the model, from a prompt set on a grid."""

    def ask(grid, prompts):
        model = Recorder()
        segment(model, rasters[grid], prompts, store=tmp_path / "f.zarr", scales=[1])
        return model.prompts

    return ask


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("source", SOURCES)
def test_points_reach_the_model_half_a_pixel_below_the_affine(reach, grid, source):
    pixels = np.array([(0.25, 0.25), (10.5, 20.5), (64, 64), (100.125, 3.75), (127.9, 127.9)])
    crs = prompt_crs(GRIDS[grid][0], source)
    asked = PromptSet.of(points=to_world(pixels, grid, crs), crs=crs)
    found = np.concatenate([prompt.points for prompt in reach(grid, asked)])
    assert found == pytest.approx(pixels - 0.5, abs=PX)
    if source in SOURCES[:2]:  # nothing is projected: the half is a half
        assert found == pytest.approx(pixels - 0.5, abs=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("source", SOURCES)
def test_boxes_reach_the_model_as_the_envelope_of_their_outline(reach, grid, source):
    own, transform = GRIDS[grid]
    crs = prompt_crs(own, source)
    corners = to_world([(50, 50), (70, 50), (50, 90), (70, 90)], grid, crs)
    box = envelope(corners)
    truth = true_pixel_box(box, crs, own, transform)
    assert truth.min() > 1 and truth.max() < SIZE - 1  # the box lies on the raster
    (prompt,) = reach(grid, PromptSet.of(boxes=[box], crs=crs))
    assert prompt.box == pytest.approx(truth - 0.5, abs=PX)
    assert not len(prompt.points)


@pytest.mark.parametrize("grid", ["north up", "rotated", "degrees"])
@pytest.mark.parametrize("source", ["the raster's", "EPSG:4326"])
def test_polygons_reach_the_model_as_mask_and_box(reach, grid, source):
    crs = prompt_crs(GRIDS[grid][0], source)
    triangle = [(20, 30), (90, 40), (30, 100)]
    polygon = Polygon(to_world(triangle, grid, crs))
    (prompt,) = reach(grid, PromptSet.of(polygons=[polygon], crs=crs))
    assert prompt.box == pytest.approx(np.array([20, 30, 90, 100]) - 0.5, abs=PX)
    inside = (prompt.mask > 0).ravel()
    cols, rows = map(np.ravel, np.meshgrid(np.arange(SIZE), np.arange(SIZE)))
    cells = shapely.box(cols, rows, cols + 1, rows + 1)
    assert inside[shapely.covered_by(cells, Polygon(triangle).buffer(-PX))].all()
    assert not inside[shapely.disjoint(cells, Polygon(triangle).buffer(PX))].any()


def test_the_half_pixel_is_taken_off_in_tile_pixels_at_every_scale(tmp_path):
    image = np.full((300, 300), 20, np.uint8)
    path = write_raster(tmp_path / "a.tif", image)
    click, box = (201.25, 140.5), (180, 120, 196, 152)
    x, y = 516_096, 5_160_960
    for scale in (0.25, 0.5, 1, 2, 4):
        asked = PromptSet.of(
            points=[(x + click[0], y - click[1])],
            boxes=[(x + box[0], y - box[3], x + box[2], y - box[1])],
        )
        model = Recorder()
        polygons = segment(model, path, asked, store=tmp_path / f"{scale}.zarr", scales=[scale])
        by_kind = sorted(model.prompts, key=lambda prompt: prompt.box is not None)
        for prompt, tile in zip(by_kind, polygons["tile"], strict=True):
            read_scale, row, col = re.fullmatch(r"(.+)/(\d+)/(\d+)", tile).groups()
            assert float(read_scale) == scale
            end = -(-300 // scale) - SIZE  # the last tile ends where the raster does
            corner = [max(0, min(int(index) * 96, end)) for index in (col, row)]
            wanted = np.reshape(click if prompt.box is None else box, (-1, 2)) / scale - corner
            found = prompt.points if prompt.box is None else prompt.box.reshape(2, 2)
            assert found == pytest.approx(wanted - 0.5, abs=1e-4)


# The recipe from the field: a 1000 x 1000 grid of 1 m, a box at pixels 100..200 / 200..300


def box_of(grid, crs):
    """The box round pixels 100..200 / 200..300, in a CRS, and what its envelope is in pixels."""
    own, transform = FIELD[grid]
    to_crs = Transformer.from_crs(own, crs, always_xy=True)
    x, y = to_crs.transform(*(transform @ outline((100, 200, 200, 300)).T))
    box = envelope(np.column_stack([x, y]))
    return box, true_pixel_box(box, crs, own, transform)


FIELD = {
    "utm": ("EPSG:32633", Affine(1, 0, 516_096, 0, -1, 5_160_960)),
    "degrees": ("EPSG:4326", Affine(1e-5, 0, 15, 0, -1e-5, 45)),
    "rotated": (
        "EPSG:32633",
        Affine.translation(516_096, 5_160_960) @ Affine.rotation(20) @ Affine.scale(1, -1),
    ),
}


@pytest.mark.parametrize("grid", FIELD)
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_the_box_of_the_field(grid, crs):
    own, transform = FIELD[grid]
    frame = Frame((1000, 1000), transform, CRS(own))
    box, truth = box_of(grid, crs)
    placed = to_pixels(Prompt("a", box=tuple(box)), CRS(crs), frame)
    assert placed.box == pytest.approx(truth, abs=PX)
    assert not placed.clipped
    if grid != "rotated":  # no sides are turned but for the convergence of UTM's meridians
        assert placed.box == pytest.approx((100, 200, 200, 300), abs=0.5)


def test_the_box_of_the_field_in_its_own_crs_is_exact():
    frame = Frame((1000, 1000), FIELD["utm"][1], CRS("EPSG:32633"))
    for crs in (None, CRS("EPSG:32633")):
        box = (516_196, 5_160_660, 516_296, 5_160_760)
        assert to_pixels(Prompt("a", box=box), crs, frame).box == (100, 200, 200, 300)


LARGE = {
    "2 degrees on UTM": ((13.9, 46.2, 16.1, 48.3), 4326, 32633, (10, 300_000, 5_400_000)),
    "3 degrees on LAEA": ((8, 47, 11, 49), 4326, 3035, (10, 4_000_000, 3_000_000)),
    "web mercator on UTM": ((1.60e6, 5.8e6, 1.75e6, 5.9e6), 3857, 32633, (10, 450_000, 5_250_000)),
    "UTM on degrees": ((450_000, 5_100_000, 550_000, 5_200_000), 32633, 4326, (1e-4, 14, 48)),
    "across a zone": ((17.7, 47.0, 18.3, 47.4), 4326, 32634, (10, 100_000, 5_300_000)),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_boxes_with_curved_sides(name):
    box, crs, own, (step, left, top) = LARGE[name]
    transform = Affine(step, 0, left, 0, -step, top)
    frame = Frame((30_000, 30_000), transform, CRS(own))
    truth = true_pixel_box(box, crs, own, transform)
    assert frame.box_to_pixel(box, CRS(crs)) == pytest.approx(truth, abs=PX)
    corners = np.array(Transformer.from_crs(crs, own, always_xy=True).transform(*outline(box, 2).T))
    two = envelope(np.column_stack(~transform @ corners[:, [0, -1]]))
    assert np.abs(two - truth).max() > 20 * PX  # two corners would not have done


def test_longitudes_of_any_turn_land_on_a_raster_across_the_antimeridian(tmp_path):
    image = np.full((SIZE, SIZE), 20, np.uint8)
    place = Affine(0.01, 0, 179.36, 0, -0.01, -16)
    path = write_raster(tmp_path / "a.tif", image, crs="EPSG:4326", transform=place)
    model = Recorder()
    points = [(179.36 + 0.105, -16.105), (-179.895, -16.105), (180.105, -16.105)]
    box = (179.5, -17, -179.5, -16.5)
    segment(model, path, PromptSet.of(points=points, boxes=[box], crs="EPSG:4326"), scales=[1])
    found = np.concatenate([prompt.points for prompt in model.prompts])
    assert found == pytest.approx(np.array([(10, 10), (74, 10), (74, 10)]), abs=PX)
    assert model.prompts[-1].box == pytest.approx(np.array([14, 50, 114, 100]) - 0.5, abs=PX)

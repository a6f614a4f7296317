"""An object is outlined alike wherever its raster starts and ends."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from geosam.prompts import PromptSet
from geosam.scene import ladder
from geosam.verbs import segment
from tests.fakes import NORTH_UP, FloodModel, discs, write_raster
from tests.geosam.test_verbs import clicks
from tiles import Raster


def test_the_same_object_in_a_clip_and_in_the_scene(tmp_path):
    image = discs((1200, 1300), (700, 700, 50))
    scene = write_raster(tmp_path / "scene.tif", image)
    clip = write_raster(
        tmp_path / "clip.tif", image[583:890, 577:901],
        transform=Affine(1, 0, 516_673, 0, -1, 5_160_960 - 583),
    )  # fmt: skip
    asked = clicks(scene, [(700, 700)])
    one, two = (segment(FloodModel(), path, asked).geometry[0] for path in (scene, clip))
    assert one.intersection(two).area / one.union(two).area >= 0.95


@pytest.mark.parametrize("corner", [(0, 0), (1, 3), (37, 101), (95, 64)])
def test_a_clip_gives_what_the_scene_gives(tmp_path, corner):
    """Also at coarse scales, where a pixel is a mean, and at objects without sharp edges."""
    rows, cols = np.mgrid[:700, :800]
    image = (120 + 90 * np.sin(rows / 23) * np.cos(cols / 31)).astype(np.uint8) // 40 * 40
    scene = write_raster(tmp_path / "scene.tif", image)
    left, top = corner
    moved = NORTH_UP @ Affine.translation(left, top)
    clip = write_raster(tmp_path / "clip.tif", image[top:690, left:790], transform=moved)
    x, y = np.array([[400.5, 350.5], [330.5, 300.5], [420.5, 280.5]]).T
    asked = PromptSet.of(points=np.column_stack([NORTH_UP.c + x, NORTH_UP.f - y]))
    for scale in (0.5, 1, 2):
        found = [segment(FloodModel(), path, asked, scales=[scale]) for path in (scene, clip)]
        assert found[0].geometry.geom_equals_exact(found[1].geometry, 1e-6).all()
        assert found[0]["status"].tolist() == found[1]["status"].tolist()


def test_overviews_made_later_serve_the_store_and_move_the_lattice_of_a_new_one(tmp_path):
    moved = NORTH_UP @ Affine.translation(3, 5)
    path = write_raster(tmp_path / "a.tif", discs((1500, 1500), (700, 700, 90)), transform=moved)
    center = PromptSet.of(points=[moved @ (700.5, 700.5)])
    before = segment(FloodModel(), path, center, store=tmp_path / "a.zarr")
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    after = segment(FloodModel(), path, center, store=tmp_path / "a.zarr")
    assert after.equals(before) and after["status"].tolist() == ["ok"]
    with Raster.open(path) as raster:
        grids = {grid.scale: grid for grid in ladder(raster, 128)}
    for scale, step in ((1, 1), (2, 2), (4, 4), (8, 4)):
        read = grids[scale][1, 1].read
        assert read.col % step == read.row % step == 0
        assert -(read.col + 3) % (96 * scale) < step  # so far before a place of the lattice

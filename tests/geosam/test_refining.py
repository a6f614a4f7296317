"""Large objects are found at a coarse scale and outlined at a finer one."""

import numpy as np
import pytest
import shapely
from scipy import ndimage

from geosam import PromptSet, segment
from geosam.scene import Scene
from geosam.verbs import encode
from tests.fakes import NORTH_UP, FloodModel, discs, write_raster

SHAPE, MIDDLE, RADIUS = (400, 420), (190, 210), 70  # px
ROUND = (np.hypot(*np.mgrid[-190:210, -210:210]) < RADIUS).astype(bool)


@pytest.fixture
def path(tmp_path):
    return write_raster(tmp_path / "a.tif", discs(SHAPE, (*MIDDLE, RADIUS)))


def box_of(inside):
    rows, cols = np.nonzero(inside)
    corners = ((cols.min(), rows.max() + 1), (cols.max() + 1, rows.min()))
    return tuple(number for corner in corners for number in NORTH_UP @ corner)


def outlined(model, path, inside=ROUND, **options):
    (found,) = segment(
        model, path, PromptSet.of(boxes=[box_of(inside)]), simplify_m=0, **options
    ).itertuples()
    return found


def test_the_outline_runs_along_the_raster_s_own_pixels(path):
    found, seen_whole = outlined(FloodModel(), path), outlined(FloodModel(512, "flood-512"), path)
    assert (found.scale, seen_whole.scale) == (4, 1)
    assert found.status == seen_whole.status == "ok"
    assert found.geometry.normalize().equals_exact(seen_whole.geometry.normalize(), 1e-6)
    assert found.area_m2 == pytest.approx(seen_whole.area_m2, rel=1e-9)


def test_it_is_as_found_without_a_finer_scale(path):
    found = outlined(FloodModel(), path, scales=[4])
    refined = outlined(FloodModel(), path, scales=[2, 4])
    best = outlined(FloodModel(), path)
    truth = outlined(FloodModel(512, "flood-512"), path).geometry
    errors = [one.geometry.symmetric_difference(truth).area for one in (found, refined, best)]
    assert errors[0] > errors[1] > errors[2] + 100


def test_a_tile_that_shows_another_object_changes_nothing(path):
    class Elsewhere(FloodModel):
        """Takes the ground for the object as soon as it is shown a rough mask."""

        def _mask(self, features, prompt):
            found = super()._mask(features, prompt)
            return found if prompt.mask is None else ~found

    found, coarse = outlined(Elsewhere(), path), outlined(FloodModel(), path, scales=[4])
    shared = found.geometry.intersection(coarse.geometry).area
    assert shared / found.geometry.union(coarse.geometry).area > 0.99


def test_the_outline_moves_no_further_than_the_band(path):
    class Spreading(FloodModel):
        """Adds a strip across the tile to what a rough mask shows."""

        def _mask(self, features, prompt):
            found = super()._mask(features, prompt)
            if prompt.mask is not None:
                found[60:64] = True
            return found

    truth = outlined(FloodModel(512, "flood-512"), path).geometry
    found = outlined(Spreading(), path).geometry
    assert found.area > truth.area + 50
    assert truth.buffer((2 + 1) * 4 * 2**0.5).covers(found)


def test_pixels_without_data_are_left_out_along_the_outline_and_inside(tmp_path):
    rng = np.random.default_rng(0)
    gaps = rng.random(SHAPE) < 0.01
    image = np.where(gaps, 0, discs(SHAPE, (*MIDDLE, RADIUS)))
    path = write_raster(tmp_path / "a.tif", image.astype(np.uint8), nodata=0)

    class Blind(FloodModel):
        """Sees a disc whatever lies in it, a larger one from near."""

        def _mask(self, features, prompt):
            rough = prompt.mask
            if rough is not None:
                return ndimage.binary_dilation(rough > 0, iterations=7)
            xmin, ymin, xmax, ymax = prompt.box + 0.5
            rows, cols = np.mgrid[: self.size, : self.size] + 0.5
            return np.hypot(rows - (ymin + ymax) / 2, cols - (xmin + xmax) / 2) < (xmax - xmin) / 2

    found = outlined(Blind(), path).geometry
    rows, cols = np.nonzero(gaps)
    corners = np.array([NORTH_UP @ (col, row + 1) for row, col in zip(rows, cols, strict=True)])
    without_data = shapely.box(*corners.T, *(corners + 1).T)
    assert shapely.area(shapely.intersection(found, without_data)).max() == 0
    middle = shapely.Point(NORTH_UP @ (MIDDLE[1], MIDDLE[0]))
    within = shapely.difference(middle.buffer(RADIUS), shapely.union_all(without_data))
    assert within.difference(found).area == pytest.approx(0, abs=1e-3)


def test_stored_tiles_alone_do_where_nothing_may_be_encoded(path):
    store = encode(FloodModel(), path, scales=[4])
    found = outlined(FloodModel(), store, scales=None)
    assert found.geometry.equals(outlined(FloodModel(), path, scales=[4]).geometry)
    path.unlink()
    alone = outlined(FloodModel(), store, scales=[1, 2, 4])
    assert alone.geometry.equals(found.geometry)


def test_only_tiles_along_the_outline_are_encoded(path):
    model = FloodModel()
    outlined(model, path)
    store = Scene.open(model, path).store
    assert model.encoded < len(store.grid(1))
    outline = shapely.Point(MIDDLE[1], MIDDLE[0]).buffer(RADIUS).exterior
    near = outline.buffer(3 * 4)
    for tile in store.grid(1):
        core = shapely.box(tile.core.col, tile.core.row, tile.core.right, tile.core.bottom)
        assert (store.status(tile) == "done") <= core.intersects(near)

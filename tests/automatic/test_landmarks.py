"""Every object in tiles round landmarks: the same wherever tiles would fall, and in clips."""

import geopandas
import numpy as np
import pandas
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import geosam
from geosam.automatic import landmarks
from geosam.automatic.landmarks import (
    AROUND_PX,
    SPOT_PX,
    Landmarks,
    apart,
    bright_spots,
    brightness,
)
from geosam.centred import CentredScene
from geosam.scene import Scene
from tests.automatic.test_everything import (
    DENSITY,
    PLACES,
    Counting,
    burn,
    off_the_border,
    run,
    scene_of,
)
from tests.fakes import NORTH_UP, FloodModel, write_raster
from tiles import StoreIncomplete, Window

GRAINY = np.random.default_rng(0).integers(0, 256, (3, 90, 110), np.uint8)


def centred_scene(path):
    return CentredScene.of(Scene.open(FloodModel(), path))


def spots_of(scene, radius_px):
    height, width = scene.frame.shape
    return bright_spots(scene, radius_px, Window(0, 0, width, height))


@given(
    arrays(np.int64, (17, 15), elements=st.integers(0, 765)),
    arrays(bool, (17, 15)),
    st.integers(0, 16),
    st.integers(0, 14),
)
def test_brightness_compares_the_means_of_what_is_ours(light, ours, row, col):
    means = []
    for half in (SPOT_PX, AROUND_PX):
        part = np.s_[max(row - half, 0) : row + half + 1, max(col - half, 0) : col + half + 1]
        own = light[part][ours[part]]
        means.append((own.mean(), len(own)) if len(own) else (0.0, 0))
    (small, few), (around, many) = means
    expected = (small - around) * few * many
    assert brightness(light, ours)[row, col] == pytest.approx(expected, abs=1e-6)


@given(arrays(np.int64, st.tuples(st.integers(1, 60), st.just(2)), elements=st.integers(0, 99)))
def test_places_taken_lie_apart_and_leave_none_far_away(places):
    taken = apart(places, 20)
    gaps = np.abs(taken[:, None] - taken).max(2)
    assert (gaps[~np.eye(len(taken), dtype=bool)] > 20).all()
    assert taken[0].tolist() == places[0].tolist()
    rank = {tuple(place): i for i, place in reversed(list(enumerate(places.tolist())))}
    for i, place in enumerate(places):  # each is taken, or there is an earlier one nearby
        near = taken[np.abs(taken - place).max(1) <= 20]
        assert min(rank[tuple(other)] for other in near.tolist()) <= i


def test_bright_spots_are_the_same_whatever_blocks_are_read(tmp_path, monkeypatch):
    scene = centred_scene(write_raster(tmp_path / "a.tif", GRAINY))
    spots = spots_of(scene, 8)
    strength = brightness(GRAINY.astype(np.int64).sum(0) + 1, np.ones(GRAINY.shape[1:], bool))
    for col, row in spots:
        around = strength[max(row - 8, 0) : row + 9, max(col - 8, 0) : col + 9]
        assert strength[row, col] == around.max() > 0
    assert (np.diff([strength[row, col] for col, row in spots]) <= 0).all()
    assert len(spots) >= 15
    monkeypatch.setattr(landmarks, "BLOCK_PX", 32)
    assert spots_of(scene, 8).tolist() == spots.tolist()
    part = bright_spots(scene, 8, Window(20, 10, 50, 70))
    inside = ((spots >= (20, 10)) & (spots < (70, 80))).all(1)
    assert part.tolist() == spots[inside].tolist()


def test_where_nothing_stands_out_the_middle_does(tmp_path):
    scene = centred_scene(write_raster(tmp_path / "a.tif", np.full((60, 81), 90, np.uint8)))
    assert spots_of(scene, 8).tolist() == [[40, 30]]


def test_ground_stands_out_from_nodata_however_dark_it_is(tmp_path):
    image = np.full((200, 300), 255, np.uint8)
    for row, col in ((20, 30), (120, 250), (150, 90)):
        image[row : row + 12, col : col + 9] = 0
    scene = centred_scene(write_raster(tmp_path / "a.tif", image, nodata=255))
    spots = spots_of(scene, 32)
    assert (image[tuple(spots.T[::-1])] == 0).all()
    assert len({(row // 100, col // 100) for col, row in spots.tolist()}) == 3


def test_every_object_comes_out_whole_and_once(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    polygons, image = run(path, centred=True), scene_of()
    assert set(polygons["status"]) == {"ok"}
    for value in (20, 200, 201, 202, 203):
        truth = image == value
        masks = [burn(polygon, path) for polygon in polygons.geometry]
        ious = [(truth & found).sum() / (truth | found).sum() for found in masks]
        assert sum(iou > 0.5 for iou in ious) == 1
        assert max(ious) >= (0.99 if value > 20 else 0.95)
    assert len(polygons) == 5


SCENE = np.pad(scene_of(), 130, constant_values=20)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    path = write_raster(tmp_path_factory.mktemp("whole") / "a.tif", SCENE)
    return whole_ones(path, SCENE.shape, NORTH_UP)


def whole_ones(path, shape, transform):
    """As texts, without the ground, of which each tile sees another part."""
    found = run(path, centred=True, scales=[1, 2])
    return off_the_border(found[found["status"] == "ok"], shape, transform)


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.integers(0, 69), min_size=4, max_size=4))
def test_a_clip_gives_what_the_scene_gives(tmp_path_factory, known, cuts):
    left, top, right, bottom = cuts
    image = SCENE[top : SCENE.shape[0] - bottom, left : SCENE.shape[1] - right]
    transform = NORTH_UP @ Affine.translation(left, top)
    path = write_raster(tmp_path_factory.mktemp("clip") / "a.tif", image, transform=transform)
    found = whole_ones(path, image.shape, transform)
    assert len(found) == len(PLACES)
    assert found == known


@settings(max_examples=2, deadline=None)
@given(st.tuples(st.integers(-999, 999), st.integers(-999, 999)))
def test_ground_that_lies_elsewhere_gives_what_it_gave(tmp_path_factory, shift):
    """With a network, which answers a little differently wherever an object lies in its tile."""
    folder, rng = tmp_path_factory.mktemp("moved"), np.random.default_rng(0)
    rows, cols = np.mgrid[:300, :310]
    waves = [np.sin(rows / a) * np.cos(cols / b) for a, b in ((13, 17), (23, 31), (40, 21))]
    image = (120 + 40 * np.stack(waves) + rng.normal(0, 6, (3, 300, 310))).clip(0, 255)
    place = NORTH_UP @ Affine.scale(0.3)  # coordinates are not whole, nor exact
    found = []
    for name, own in (("here", place), ("there", place @ Affine.translation(*shift))):
        path = write_raster(folder / f"{name}.tif", image.astype(np.uint8), transform=own)
        objects = geosam.everything(geosam.load_model("nano"), path, centred=True, scales=[1])
        table = pandas.concat(objects, ignore_index=True)
        back = ~own
        table.geometry = table.geometry.affine_transform([back.a, 0, 0, back.e, back.c, back.f])
        found.append(table)
    here, there = found
    assert len(here) == len(there) >= 5
    for one, two in zip(here.geometry, there.geometry, strict=True):
        assert one.equals_exact(two, 1e-5)
    columns = ["id", "status", "score", "stability", "tile"]
    assert here[columns].equals(there[columns])


def test_what_no_scale_holds_is_marked(tmp_path):
    image = scene_of(((216, 216, 150),), (432, 432))  # 300 px across; a tile has 128
    path = write_raster(tmp_path / "a.tif", image)
    assert "truncated" in set(run(path, centred=True, scales=[1])["status"])
    found = run(path, centred=True)
    truth = image == 200
    ious = [(truth & burn(p, path)).sum() / (truth | burn(p, path)).sum() for p in found.geometry]
    (one,) = np.flatnonzero(np.array(ious) > 0.5)
    assert ious[one] >= 0.97
    assert set(found["status"]) == {"ok"}


def test_an_area_of_interest(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    spot = geopandas.GeoDataFrame(
        geometry=[shapely.Point(516_144, 5_160_900).buffer(8)], crs="EPSG:32633"
    )
    (one,) = run(path, centred=True, area=spot, max_area_m2=5000).geometry
    assert burn(one, path)[60, 48]


def test_far_from_an_area_of_interest_nothing_is_looked_through(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", scene_of(((600, 60, 15), (40, 40, 12)), (640, 600)))
    monkeypatch.setattr(landmarks, "BLOCK_PX", 100)
    area = geopandas.GeoDataFrame(
        geometry=[shapely.Point(NORTH_UP @ (60.0, 600.0)).buffer(8)], crs="EPSG:32633"
    )
    told = []
    found = run(path, centred=True, area=area, scales=[1], progress=lambda *now: told.append(now))
    assert told[0] == (0, 4 * 4)  # of 7 x 6 blocks: those within 264 px of the middle
    whole = run(path, centred=True, scales=[1])
    (one,), (two,) = (
        some[(some.area < 5000) & some.intersects(area.geometry[0])].geometry
        for some in (found, whole)
    )
    assert one.equals(two)


def test_coverage_shares_out_the_ground(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    polygons = run(path, centred=True, coverage=True)
    assert shapely.coverage_is_valid(polygons.geometry.to_numpy())
    assert polygons.area.sum() > 0.95 * SCENE[130:-130, 130:-130].size


def test_each_place_is_asked_in_the_tile_whose_middle_is_nearest(tmp_path):
    scene = centred_scene(write_raster(tmp_path / "a.tif", GRAINY))
    tiling = Landmarks(scene, (0.25, 1.0))
    tiles = [tile for some in tiling.rows(0.25) for tile in some]
    middles = np.array([tile.index[::-1] for tile in tiles])
    asked = []
    for tile, middle in zip(tiles, middles, strict=True):
        points = tiling.points(tile, 8, None)
        away = np.abs(points[:, None] - middles).max(2)
        assert (away.min(1) == np.abs(points - middle).max(1)).all()
        asked += points.tolist()
    assert len(set(map(tuple, asked))) == len(asked) == pytest.approx(90 * 110 / 2**2, rel=0.1)
    coarse = next(tiling.rows(1.0))[0]
    left, top, right, bottom = (
        coarse.core.col,
        coarse.core.row,
        coarse.core.right,
        coarse.core.bottom,
    )
    within = ((middles >= (left, top)) & (middles < (right, bottom))).all(1)
    assert {tile.index for tile in tiling.over(coarse, 0.25)} >= {
        tile.index for tile, near in zip(tiles, within, strict=True) if near
    }
    assert within.sum() >= 4


def test_what_is_done_is_not_done_again(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    told = []
    first = run(path, centred=True, scales=[1, 2], progress=lambda *now: told.append(now))
    assert told[0] == (0, 1)  # the one block in which landmarks are looked for
    assert told[-1][0] == told[-1][1] == len({done for done, _ in told if done})
    again = Counting()
    assert run(path, again, centred=True, scales=[1, 2]).equals(first)
    assert again.decoded == again.encoded == 0
    assert not run(path, again, scales=[1, 2]).equals(
        first
    )  # on the grid: another run, with its own work
    assert again.encoded > 0


def test_landmarks_need_the_raster(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    store = geosam.encode(FloodModel(), path)
    found = geosam.everything(FloodModel(), store, centred=True, density=DENSITY)
    assert pandas.concat(found, ignore_index=True).equals(run(path, centred=True))
    path.unlink()
    with pytest.raises(StoreIncomplete, match="cannot be opened"):
        list(geosam.everything(FloodModel(), store, centred=True, density=DENSITY + 1))

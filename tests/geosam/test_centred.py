"""With tiles of their own, prompts are answered alike wherever the raster's tiles fall."""

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling

import geosam
from geosam.centred import CentredScene
from geosam.decode import decode
from geosam.prompts import PromptSet
from geosam.scene import Scene
from geosam.verbs import segment
from tests.fakes import NORTH_UP, FloodModel, discs, write_raster
from tiles import FeatureStore, RasterError, StoreIncomplete, Window

BOX = (510.0, 490.0, 581.0, 580.0)  # px: an even and an odd side
CLICKS = [(560.5, 530.5), (550.2, 540.1)]  # the second in the middle of four overview pixels


@pytest.fixture(scope="module")
def nano():
    return geosam.load_model("nano")


@pytest.fixture(scope="module")
def ground():
    """Soft shapes of all sizes on grainy ground, RGB."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:1120, :1130]
    waves = [np.sin(rows / a) * np.cos(cols / b) for a, b in ((23, 31), (70, 41), (150, 190))]
    image = 120 + 30 * np.stack(waves) + rng.normal(0, 6, (3, 1120, 1130))
    return image.clip(0, 255).astype(np.uint8)


def answers(model, path, corner, **options):
    """Of a box and of clicks, in px of the whole ground, of which the raster starts at a corner."""
    with rasterio.open(path) as raster:
        place = raster.transform
    left, top = corner
    shift = Affine.translation(-left, -top)
    box = shapely.transform(shapely.box(*BOX), lambda xy: to_world(place @ shift, xy)).bounds
    boxes = segment(model, path, PromptSet.of(boxes=[box]), **options)
    points = PromptSet.of(points=to_world(place @ shift, np.array(CLICKS)))
    clicks = segment(model, path, points, **options)
    back = ~(place @ shift)
    return [
        (row.status, shapely.transform(row.geometry, lambda xy: to_world(back, xy)))
        for found in (boxes, clicks)
        for row in found.itertuples()
    ]


def to_world(transform, xy):
    x, y = np.asarray(xy, np.float64).T
    t = transform
    return np.column_stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f])


def assert_alike(one, two):
    for (status, shape), (other_status, other) in zip(one, two, strict=True):
        assert status == other_status == "ok"
        assert shape.equals_exact(other, 1e-6)


@settings(max_examples=4)
@given(st.tuples(st.integers(-999, 999), st.integers(-999, 999)))
def test_ground_that_lies_elsewhere_gives_what_it_gave(tmp_path_factory, nano, ground, shift):
    folder = tmp_path_factory.mktemp("moved")
    place = NORTH_UP @ Affine.scale(0.3)  # coordinates are not whole, nor exact
    here = write_raster(folder / "here.tif", ground, transform=place)
    there = write_raster(folder / "there.tif", ground, transform=place @ Affine.translation(*shift))
    one, two = (answers(nano, path, (0, 0), centred=True) for path in (here, there))
    assert_alike(one, two)


def test_a_clip_with_the_tiles_gives_what_the_scene_gives(tmp_path, nano, ground):
    """Also with overviews, whose pixels lie elsewhere in the clip."""
    place = NORTH_UP @ Affine.scale(0.3)
    scene = write_raster(tmp_path / "scene.tif", ground, transform=place)
    clip = write_raster(
        tmp_path / "clip.tif", ground[:, 3:1115, 5:1127],
        transform=place @ Affine.translation(5, 3),
    )  # fmt: skip
    whole = answers(nano, scene, (0, 0), centred=True, scales=[2])
    assert_alike(whole, answers(nano, clip, (5, 3), centred=True, scales=[2]))
    for path in (scene, clip):
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], Resampling.nearest)
    assert_alike(whole, answers(nano, scene, (0, 0), centred=True, scales=[2]))
    assert_alike(whole, answers(nano, clip, (5, 3), centred=True, scales=[2]))


def test_outlines_drawn_again_lie_on_tiles_of_their_own_too(tmp_path):
    """An object of 340 px is found at scale 8 of tiles of 128 px, and drawn again at 2."""
    image = discs((1200, 1300), (600, 700, 170))
    shapes = []
    for shift in ((0, 0), (37, 11)):
        place = NORTH_UP @ Affine.translation(*shift)
        path = write_raster(tmp_path / f"{shift[0]}.tif", image, transform=place)
        box = shapely.transform(
            shapely.box(530, 430, 870, 770), lambda xy, p=place: to_world(p, xy)
        )
        found = segment(FloodModel(), path, PromptSet.of(boxes=[box.bounds]), centred=True)
        assert found["status"].tolist() == ["ok"] and found["scale"].tolist() == [8]
        shapes.append(shapely.transform(found.geometry[0], lambda xy, p=place: to_world(~p, xy)))
    assert shapes[0].equals_exact(shapes[1], 1e-6)
    truth = shapely.Point(700.5, 600.5).buffer(170.3)
    assert shapes[0].symmetric_difference(truth).area < 0.02 * truth.area


def test_nothing_is_kept_and_a_prompt_costs_its_own_tiles(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((400, 400), (200, 200, 20), (90, 90, 15)))
    model = FloodModel()
    points = PromptSet.of(points=[NORTH_UP @ (200.5, 200.5), NORTH_UP @ (90.5, 90.5)])
    told = []
    found = segment(
        model, path, points, store=tmp_path / "a.zarr", centred=True,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(done, 8) for done in range(1, 9)]  # six tiles, two prompts
    assert found["status"].tolist() == ["ok", "ok"]
    assert model.encoded == 6  # three scales each
    assert found["tile"].str.split("/", n=1).str[1].tolist() == ["201/201", "91/91"]
    store = FeatureStore.open(tmp_path / "a.zarr")
    assert all(len(store.missing(grid.scale)) == len(grid) for grid in store.grids)


def test_the_answers_are_those_of_a_tile_where_both_see_all(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((700, 700), (300, 310, 25), (500, 420, 18)))
    points = PromptSet.of(points=[NORTH_UP @ (300.5, 310.5), NORTH_UP @ (500.5, 420.5)])
    tiled, centred = (segment(FloodModel(), path, points, centred=way) for way in (False, True))
    for one, two in zip(tiled.geometry, centred.geometry, strict=True):
        assert one.intersection(two).area / one.union(two).area > 0.98


def test_prompts_that_find_nothing_say_so_in_their_places(tmp_path):
    image = discs((300, 300), (150, 150, 20))
    image[:60, :60] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    places = [(-50.5, 10.5), (20.5, 20.5), (150.5, 150.5)]
    points = PromptSet.of(points=[NORTH_UP @ place for place in places])
    found = segment(FloodModel(), path, points, centred=True)
    assert found["status"].tolist() == ["outside", "empty", "ok"]


def test_an_object_larger_than_every_tile_is_truncated(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((3, 300, 300), 90, np.uint8))
    found = segment(
        FloodModel(), path, PromptSet.of(points=[NORTH_UP @ (150.5, 150.5)]), scales=[1],
        centred=True,
    )  # fmt: skip
    assert found["status"].tolist() == ["truncated"]


def test_a_store_alone_is_asked_as_long_as_its_raster_is_there(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((300, 300), (150, 150, 20)))
    store = geosam.encode(FloodModel(), path, tmp_path / "a.zarr")
    points = PromptSet.of(points=[NORTH_UP @ (150.5, 150.5)])
    assert segment(FloodModel(), store, points, centred=True)["status"].tolist() == ["ok"]
    path.unlink()
    with pytest.raises(StoreIncomplete, match=r"a\.tif cannot be opened"):
        segment(FloodModel(), store, points, centred=True)


def test_another_process_opens_the_same_kind_of_scene(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((300, 300), (150, 150, 20)))
    scene = CentredScene.of(Scene.open(FloodModel(), path))
    there = scene.address().open()
    assert isinstance(there, CentredScene)
    assert there.locate(1, (140, 140, 160, 161)) == scene.locate(1, (140, 140, 160, 161))
    assert scene.locate(1, (140, 140, 160, 161)).read == Window(86, 87, 128, 128)


def test_a_block_that_cannot_be_read_is_named_with_its_tile(tmp_path):
    points = PromptSet.of(points=[NORTH_UP @ (150.5, 150.5)])
    path = write_raster(tmp_path / "a.tif", discs((300, 300), (150, 150, 20)))
    scene = CentredScene.of(Scene.open(FloodModel(), path))
    scene.readable("the test").close()
    with pytest.raises(RasterError, match=r"^tile \(151, 151\) at scale 0.5: "):
        list(decode(scene, points, scales=(0.5,)))


def test_rounding_errors_of_coordinates_do_not_move_a_tile(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((300, 300), (150, 150, 20)))
    scene = CentredScene.of(Scene.open(FloodModel(), path))
    tiles = {scene.locate(1, (140.0, 90.0, 161.0 + error, 99.0 - error)) for error in (-1e-8, 1e-8)}
    assert [tile.index for tile in tiles] == [(95, 151)]

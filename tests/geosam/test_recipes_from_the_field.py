"""Scenes on which tools of this kind have failed, each with what must come out instead.

Prompts of every form, N in and N out, and overlapping masks are in `test_verbs`; where prompts land
is in `test_projection`.
"""

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from shapely import Point

from geosam.polygons import vectorize
from geosam.prompts import PromptSet
from geosam.verbs import encode, segment
from tests.fakes import FloodModel, write_raster
from tests.geosam.test_verbs import burn, clicks
from tiles import FeatureStore, RasterError, Window

# Four discs on 2000 x 2000: on a tile's edge, on the corner of four tiles, and inside tiles.
SIDE, TILE = 2000, 1024
DISCS = ((300, 960, 60), (960, 960, 50), (300, 300, 40), (1500, 1500, 80))


def seam_scene(dtype="uint8"):
    image = np.full((SIDE, SIDE), 20, dtype)
    for row, col, radius in DISCS:
        image[disc(row, col, radius)] = 200
    return image


def disc(row, col, radius):
    rows, cols = np.ogrid[:SIDE, :SIDE]
    return (rows - row) ** 2 + (cols - col) ** 2 < radius**2


def assert_four_discs(polygons, path, without=None):
    """One polygon a disc, each on its disc and on no pixel of `without`."""
    assert len(polygons) == 4
    assert polygons["status"].tolist() == ["ok"] * 4
    for place, polygon in zip(DISCS, polygons.geometry, strict=True):
        truth, found = disc(*place), burn(polygon, path)
        if without is not None:
            truth &= ~without
            assert not (found & without).any()
        assert polygon.geom_type == "Polygon"
        assert (truth & found).sum() / (truth | found).sum() >= 0.99


# Seams


def test_discs_on_seams_and_corners_are_four_polygons(tmp_path):
    path = write_raster(tmp_path / "a.tif", seam_scene())
    model = FloodModel(TILE)
    polygons = segment(model, path, clicks(path, DISCS))
    assert_four_discs(polygons, path)
    grid = FeatureStore.open(tmp_path / "a.tif.flood-0.features.zarr").grid(1)
    assert (len(grid), grid.size, grid.overlap) == (9, TILE, 128)
    assert set(polygons["scale"]) == {1}


def test_declared_nodata_is_no_trouble(tmp_path):
    image = seam_scene("float32")
    image[:, 1900:] = -9999
    image[290:310, 250:350] = -9999  # through a disc
    path = write_raster(tmp_path / "a.tif", image, nodata=-9999)
    places = [(280, 300), *((row, col) for row, col, _ in DISCS)]
    polygons = segment(FloodModel(TILE), path, clicks(path, places))
    hole = image == -9999
    for place in (DISCS[0], DISCS[1], DISCS[3]):
        found = burn(polygons.geometry[1 + DISCS.index(place)], path)
        assert (disc(*place) & found).sum() / (disc(*place) | found).sum() >= 0.99
    upper = burn(polygons.geometry[0], path)
    assert upper[265, 300] and not upper[335, 300]
    assert not (upper & hole).any()
    assert polygons["status"][3] == "empty"  # a click on no data


def test_one_nan_costs_one_pixel(tmp_path):
    image = seam_scene("float32")
    image[310, 305] = np.nan
    path = write_raster(tmp_path / "a.tif", image)
    polygons = segment(FloodModel(TILE), path, clicks(path, DISCS), simplify_m=0)
    gap = np.isnan(image)
    whole = [(1 - len(polygon.interiors)) for polygon in polygons.geometry]
    assert whole == [1, 1, 0, 1]
    assert_four_discs(polygons, path, gap)


def test_flat_stripes_stay_flat(tmp_path):
    image = np.full((600, 600), 100, np.uint8)
    image[::2] = 101
    path = write_raster(tmp_path / "a.tif", image)
    store = encode(FloodModel(), path, tmp_path / "f.zarr", scales=[1])
    for tile in store.grid(1):
        part = tile.read & Window(0, 0, 600, 600)
        seen = store[tile][0][part.slices(tile.read)]
        assert (seen == image[part.slices()]).all()  # as stored: no tile is stretched


# What cannot be encoded


class Breaks(FloodModel):
    """Raises when it is given the image with a marked pixel."""

    def encode(self, images):
        if (images == 99).any():
            raise MemoryError("no room")
        return super().encode(images)


def test_an_encoder_that_raises_is_heard_and_what_was_done_stays(tmp_path):
    image = np.full((600, 640), 20, np.uint8)
    image[300, 300] = 99
    path = write_raster(tmp_path / "a.tif", image)
    model = Breaks()
    with pytest.raises(MemoryError, match="no room"):
        encode(model, path, tmp_path / "f.zarr", scales=[1])
    store = FeatureStore.open(tmp_path / "f.zarr")
    kept = len(store.grid(1)) - len(store.missing(1))
    assert kept == model.encoded > 0
    healthy = FloodModel()
    encode(healthy, path, tmp_path / "f.zarr", scales=[1])
    assert healthy.encoded == len(store.grid(1)) - kept
    assert not store.missing(1) and not store.verify()


def spoil_block(path, row, col):
    """Overwrite the bytes of one block of a tiled GeoTIFF."""
    with rasterio.open(path) as file:
        start, count = (
            int(file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1))
            for what in ("OFFSET", "SIZE")
        )
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * count)


def test_a_tile_that_cannot_be_read_is_named_and_every_other_one_is_kept(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1200, 1200), np.uint8)
    path = tmp_path / "a.tif"
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    write_raster(path, image, **blocks)
    spoil_block(path, 3, 3)
    model = FloodModel()
    with pytest.raises(
        RasterError, match=r"^tile \(1, 1\) at scale 1: .*unreadable.* 3 other tiles"
    ):
        encode(model, path, tmp_path / "f.zarr", scales=[1])
    store = FeatureStore.open(tmp_path / "f.zarr")
    assert [tile.index for tile in store.missing(1)] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert model.encoded == len(store.grid(1)) - 4
    write_raster(path, image, **blocks)
    encode(model, path, tmp_path / "f.zarr", scales=[1])
    assert model.encoded == len(store.grid(1))


# Contrast


def model_input(path, folder, **options):
    """What the model sees of a raster at scale 1: (H, W) grey levels."""
    with rasterio.open(path) as file:
        shape = file.shape
    store = encode(FloodModel(), path, folder / f"{path.stem}.zarr", scales=[1], **options)
    seen = np.full(shape, np.nan)
    for tile in store.grid(1):
        part = tile.read & Window(0, 0, shape[1], shape[0])
        seen[part.slices()] = store[tile][0][part.slices(tile.read)]
    return seen


def test_one_saturated_pixel_changes_next_to_nothing(tmp_path):
    scene = np.random.default_rng(0).integers(200, 1800, (700, 700)).astype(np.uint16)
    before = model_input(write_raster(tmp_path / "a.tif", scene), tmp_path)
    scene[350, 350] = 65535
    after = model_input(write_raster(tmp_path / "b.tif", scene), tmp_path)
    assert (before != after).mean() < 0.01
    low, middle, high = np.percentile(after, [1, 50, 99])
    assert low < 5 and 120 < middle < 135 and high > 250


def test_reflectance_with_nodata_keeps_its_contrast(tmp_path):
    random = np.random.default_rng(0)
    scene = random.uniform(0, 0.3, (700, 700)).astype(np.float32)
    gaps = random.uniform(size=scene.shape) < 0.1
    before = model_input(write_raster(tmp_path / "a.tif", scene), tmp_path)
    holed = np.where(gaps, np.float32(-9999), scene)
    path = write_raster(tmp_path / "b.tif", holed, nodata=-9999)
    after = model_input(path, tmp_path)
    low, middle, high = np.percentile(after[~gaps], [1, 50, 99])
    assert low < 5 and 120 < middle < 135 and high > 250
    assert np.abs(before - after)[~gaps].max() <= 1  # grey levels


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_neighbouring_tiles_see_the_same_where_they_overlap(tmp_path, dtype, scale):
    random = np.random.default_rng(0)
    scene = (random.gamma(2, 20, (3, 331, 347)) + 1).astype(dtype)
    scene[:, 100:140, 60:200] = 0
    path = write_raster(tmp_path / "a.tif", scene, nodata=0)
    store = encode(FloodModel(), path, tmp_path / "f.zarr", scales=[scale])
    grid = store.grid(scale)
    compared = 0
    for tile in grid:
        for step in ((0, 1), (1, 0), (1, 1)):
            row, col = np.add(tile.index, step).tolist()
            if row < grid.rows and col < grid.cols:
                other = grid[row, col]
                common = tile.read & other.read
                one, two = (
                    store[place][:, *(
                        slice(round((start - own) / scale), round((stop - own) / scale))
                        for start, stop, own in (
                            (common.row, common.bottom, place.read.row),
                            (common.col, common.right, place.read.col),
                        )
                    )]
                    for place in (tile, other)
                )  # fmt: skip
                assert one.size and one.tobytes() == two.tobytes()
                compared += 1
    assert compared >= 4


# Prompts


@pytest.fixture
def two_discs(tmp_path):
    """20-px discs at pixels (50, 50) and (120, 120) of a 1 m UTM grid, and boxes round them."""
    image = np.full((200, 200), 20, np.uint8)
    for row, col in ((50, 50), (120, 120)):
        image[disc(row, col, 20)[:200, :200]] = 200
    x, y = 516_096, 5_160_960
    boxes = [(x + c - 21, y - c - 21, x + c + 21, y - c + 21) for c in (50, 120)]
    return write_raster(tmp_path / "a.tif", image), boxes


@pytest.mark.parametrize("crs", [None, "EPSG:32633", "EPSG:4326"])
@pytest.mark.parametrize("count", [1, 2])
def test_boxes_in_a_list_and_in_an_array(two_discs, crs, count):
    path, boxes = two_discs
    if crs == "EPSG:4326":
        to_degrees = Transformer.from_crs(32633, crs, always_xy=True)
        boxes = [to_degrees.transform_bounds(*box, densify_pts=101) for box in boxes]
    listed, array = (
        segment(FloodModel(), path, PromptSet.of(boxes=some, crs=crs))
        for some in (boxes[:count], np.array(boxes[:count]))
    )
    assert listed.equals(array)
    assert listed["status"].tolist() == ["ok"] * count
    assert listed["area_m2"].tolist() == pytest.approx([np.pi * 20**2] * count, rel=0.05)


def test_one_of_two_points_outside_keeps_the_other_and_their_order(two_discs):
    path, _ = two_discs
    points = [Point(400_000, 5_160_960), Point(516_146, 5_160_910)]
    frame = geopandas.GeoDataFrame({"id": ["far", "near"]}, geometry=points, crs=32633)
    polygons = segment(FloodModel(), path, frame.to_crs(4326))
    assert polygons["id"].tolist() == ["far", "near"]
    assert polygons["status"].tolist() == ["outside", "ok"]
    assert polygons.geometry[0] is None
    assert polygons["area_m2"].tolist() == pytest.approx([0, np.pi * 20**2], rel=0.05)


def test_a_second_image_after_a_batch_is_like_a_first_one(two_discs, tmp_path):
    path, boxes = two_discs
    other = write_raster(tmp_path / "b.tif", np.full((200, 200), 7, np.uint8))
    model = FloodModel()
    asked = PromptSet.of(points=[(516_146, 5_160_910)], boxes=boxes)
    first = segment(model, path, asked)
    second = segment(model, other, asked)
    again = segment(model, path, asked)
    fresh = segment(FloodModel(), other, asked, store=tmp_path / "fresh.zarr")
    assert again.equals(first)
    assert second.equals(fresh)
    assert not second.geometry[0].equals(first.geometry[0])


# Label rasters


def test_noisy_discs_of_a_label_raster_are_one_record_each(tmp_path):
    random = np.random.default_rng(0)
    pitch, rows, cols = 66, 60, 60
    y, x = np.mgrid[:pitch, :pitch] - pitch / 2
    labels = np.zeros((4000, 4000), np.uint32)
    for number in range(rows * cols):
        noisy = np.hypot(x, y) + random.normal(0, 1, x.shape) < random.uniform(8, 16)
        row, col = divmod(number, cols)
        place = np.s_[row * pitch : (row + 1) * pitch, col * pitch : (col + 1) * pitch]
        labels[place] = noisy * (number + 1)
    path = write_raster(tmp_path / "labels.tif", labels, compress="deflate")
    polygons = vectorize(path)
    assert polygons["label"].tolist() == list(range(1, 3601))
    assert (polygons.geom_type == "MultiPolygon").mean() > 0.9  # crumbs round every disc
    assert polygons.geometry.is_valid.all()
    assert polygons.area.tolist() == pytest.approx(np.bincount(labels.ravel())[1:].tolist())

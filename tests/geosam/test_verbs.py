"""The whole pipeline with a model whose masks are known exactly."""

import json
import zipfile

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.features import rasterize
from shapely import Point, box

from geosam.errors import BandError, ModelError, PromptError
from geosam.prompts import Prompt, PromptSet
from geosam.protocol import TilePrompt
from geosam.verbs import encode, segment
from tests.fakes import NORTH_UP, FloodModel, discs, write_raster
from tiles import FeatureStore, StoreIncomplete, StoreMismatch

PLACES = ((112, 304, 15), (304, 304, 15), (100, 100, 14), (500, 500, 15))


ELSEWHERE = TilePrompt(np.array([[50, 50]], np.float32), np.array([1]))


def burn(polygon, path):
    """The pixels whose centre a polygon covers."""
    with rasterio.open(path) as file:
        if polygon is None:
            return np.zeros(file.shape, bool)
        return rasterize([polygon], file.shape, transform=file.transform, dtype="uint8") > 0


def clicks(path, places, crs=None):
    """A prompt set with one click on each (row, col), in `crs` or the raster's."""
    with rasterio.open(path) as file:
        points = [file.transform @ (col + 0.5, row + 0.5) for row, col, *_ in places]
        own = CRS.from_user_input(file.crs.to_wkt())
    if crs:
        points = [Transformer.from_crs(own, crs, always_xy=True).transform(*p) for p in points]
    return PromptSet.of(points=points, crs=crs)


GRIDS = {
    "north up": ("EPSG:32633", Affine(1, 0, 516_096, 0, -1, 5_160_960)),
    "south up": ("EPSG:32633", Affine(1, 0, 516_096, 0, 1, 5_160_960)),
    "rotated": ("EPSG:32633", Affine(0.94, 0.342, 516_096, 0.342, -0.94, 5_160_960)),
    "degrees": ("EPSG:4326", Affine(1e-5, 0, 15, 0, -1e-5, 45)),
    "web mercator": ("EPSG:3857", Affine(0.5, 0, 1_670_000, 0, -0.5, 5_620_000)),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3035"])
def test_discs_across_tile_borders_come_out_whole_and_once(tmp_path, grid, crs):
    own, transform = GRIDS[grid]
    image = discs((600, 640), *PLACES)
    path = write_raster(tmp_path / "a.tif", image, crs=own, transform=transform)
    polygons = segment(FloodModel(), path, clicks(path, PLACES, crs))
    assert polygons["status"].tolist() == ["ok"] * 4
    assert polygons["id"].tolist() == ["1", "2", "3", "4"]
    for number, polygon in enumerate(polygons.geometry):
        truth = image == 200 + number
        found = burn(polygon, path)
        assert polygon.geom_type == "Polygon"
        assert (truth & found).sum() / (truth | found).sum() >= 0.99
    assert CRS(polygons.crs) == CRS(own)


def test_at_scale_1_every_pixel_is_exact(tmp_path):
    image = discs((300, 300), *PLACES[2:3], (160, 60, 30))
    path = write_raster(tmp_path / "a.tif", image)
    polygons = segment(FloodModel(), path, clicks(path, [(100, 100), (160, 60)]), simplify_m=0)
    for number, polygon in enumerate(polygons.geometry):
        assert (burn(polygon, path) == (image == 200 + number)).all()
    assert polygons["area_m2"].tolist() == pytest.approx(
        [(image == 200 + n).sum() for n in (0, 1)], rel=0.02
    )


def test_an_object_larger_than_a_tile_is_found_at_a_coarser_scale(tmp_path):
    image = discs((600, 600), (300, 300, 200))
    path = write_raster(tmp_path / "a.tif", image)
    asked = clicks(path, [(300, 300)])
    found = segment(FloodModel(), path, asked).iloc[0]
    truth, burnt = image == 200, burn(found.geometry, path)
    assert (found.status, found.scale) == ("ok", 4)
    assert (truth & burnt).sum() / (truth | burnt).sum() >= 0.97
    cut = segment(FloodModel(), path, asked, scales=[1]).iloc[0]
    assert cut.status == "truncated"


def test_a_box_chooses_the_scale_that_fits(tmp_path):
    image = discs((600, 600), (300, 300, 200), (50, 50, 5))
    path = write_raster(tmp_path / "a.tif", image)
    with rasterio.open(path) as file:
        corners = [((100, 100), (501, 501)), ((45, 45), (56, 56))]
        boxes = [
            (*(file.transform @ (a[0], b[1])), *(file.transform @ (b[0], a[1]))) for a, b in corners
        ]
    polygons = segment(FloodModel(), path, PromptSet.of(boxes=boxes), simplify_m=0)
    assert polygons["scale"].tolist() == [8, 0.25]
    assert polygons["status"].tolist() == ["ok", "ok"]
    small, truth = burn(polygons.geometry[1], path), image == 201
    assert (small & truth).sum() / (small | truth).sum() >= 0.75


def test_n_prompts_in_n_records_out_each_with_a_status(tmp_path):
    image = discs((200, 200), (50, 50, 20))
    image[:, 150:] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    x, y = 516_096, 5_160_960
    prompts = PromptSet(
        (
            Prompt("far", points=[(x + 900, y - 50)], labels=[1]),
            Prompt("disc", points=[(x + 50.5, y - 50.5)], labels=[1]),
            Prompt("two", points=[(x + 50.5, y - 50.5), (x + 900, y)], labels=[1, 0]),
            Prompt("edge", box=(x + 30, y - 71, x + 71, y + 100)),
            Prompt("hole", points=[(x + 190.5, y - 50.5)], labels=[1]),
        )
    )
    polygons = segment(FloodModel(), path, prompts)
    assert polygons["id"].tolist() == ["far", "disc", "two", "edge", "hole"]
    assert polygons["status"].tolist() == ["outside", "ok", "clipped", "clipped", "empty"]
    assert polygons.geometry.notna().tolist() == [False, True, True, True, False]


def test_several_points_of_one_object_add_and_take_away(tmp_path):
    image = discs((200, 200), (50, 50, 12), (50, 85, 12))
    path = write_raster(tmp_path / "a.tif", image)
    both = np.array([(516_146.5, 5_160_909.5), (516_181.5, 5_160_909.5)])
    asked = PromptSet.of(points=[both, both], labels=[[1, 1], [1, 0]])
    polygons = segment(FloodModel(), path, asked, simplify_m=0)
    assert [g.geom_type for g in polygons.geometry] == ["MultiPolygon", "Polygon"]
    assert (burn(polygons.geometry[0], path) == (image >= 200)).all()
    assert (burn(polygons.geometry[1], path) == (image == 200)).all()


def test_lists_arrays_frames_and_files_give_the_same(tmp_path):
    image = discs((200, 200), (50, 50, 20), (120, 120, 20))
    path = write_raster(tmp_path / "a.tif", image)
    rows = [(516_146.5, 5_160_909.5), (516_216.5, 5_160_839.5)]
    listed = PromptSet.of(points=rows, crs="EPSG:32633")
    first = segment(FloodModel(), path, listed)
    frame = geopandas.GeoDataFrame(
        geometry=geopandas.points_from_xy(*np.transpose(rows)), crs=32633
    )
    frame.to_file(tmp_path / "p.gpkg")
    frame.to_crs(4326).to_file(tmp_path / "p.geojson")
    for other in (PromptSet.of(points=np.array(rows)), frame, tmp_path / "p.gpkg"):
        assert segment(FloodModel(), path, other).equals(first)
    again = segment(FloodModel(), path, str(tmp_path / "p.geojson"))
    assert again.geometry.geom_equals_exact(first.geometry, 1e-6).all()


def test_a_polygon_prompts_with_its_mask_and_its_extent(tmp_path):
    image = discs((200, 200), (60, 70, 20))
    path = write_raster(tmp_path / "a.tif", image)
    rough = Point(516_166.5, 5_160_899.5).buffer(24)
    frame = geopandas.GeoDataFrame(geometry=[rough], crs=32633)
    seen = []

    class Watching(FloodModel):
        def decode(self, features, prompts, *, multimask):
            seen.extend(prompts)
            return super().decode(features, prompts, multimask=multimask)

    (polygon,) = segment(Watching(), path, frame.to_crs(3857), simplify_m=0).geometry
    assert (burn(polygon, path) == (image == 200)).all()
    (prompt,) = seen
    assert prompt.box == pytest.approx(np.array([46.5, 36.5, 94.5, 84.5]) - 0.5, abs=0.05)
    inside = rasterize([rough], (200, 200), transform=NORTH_UP) > 0
    agree = (prompt.mask > 0) == inside[:128, :128]
    assert agree.mean() > 0.98
    assert set(np.sign(prompt.mask).ravel()) == {-1, 1}


def test_overlapping_masks_stay_two_polygons(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((100, 100), (50, 50, 20)))
    x, y = 516_096, 5_160_960
    boxes = [(x + 30, y - 70, x + 60, y - 30), (x + 40, y - 70, x + 75, y - 30)]
    polygons = segment(FloodModel(), path, PromptSet.of(boxes=boxes))
    assert len(polygons) == 2
    assert polygons.geometry[0].intersects(polygons.geometry[1])


def test_multimask_gives_three_candidates_best_first(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((100, 100), (50, 50, 20)))
    asked = PromptSet.of(points=[(516_146, 5_160_910)])
    best = segment(FloodModel(), path, asked)
    three = segment(FloodModel(), path, asked, multimask=True)
    assert three["candidate"].tolist() == [0, 1, 2]
    assert three["score"].tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert three.geometry[0].equals(best.geometry[0])
    assert three["area_m2"][2] < three["area_m2"][0] < three["area_m2"][1]


def test_only_prompted_tiles_are_encoded_and_never_twice(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((600, 640), *PLACES))
    model = FloodModel()
    asked = clicks(path, PLACES[:1])
    segment(model, path, asked)
    assert model.encoded == 3  # one a scale that a click is tried at
    segment(model, path, asked)
    assert model.encoded == 3  # one a scale that a click is tried at
    assert (tmp_path / "a.tif.flood-0.features.zarr").is_dir()


def test_other_bands_than_the_usual_have_a_store_of_their_own(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.stack([discs((200, 200), (60, 60, 20))] * 3))
    asked = clicks(path, [(60, 60)])
    model = FloodModel()
    for bands in (None, [1, 2, 3], [3, 2, 1], [2], [2, 2, 2]):
        segment(model, path, asked, bands=bands)
    assert sorted(file.name for file in tmp_path.glob("*.zarr")) == [
        "a.tif.flood-0.bands-2.features.zarr", "a.tif.flood-0.bands-3-2-1.features.zarr",
        "a.tif.flood-0.features.zarr",
    ]  # fmt: skip


def test_a_store_serves_without_its_raster(tmp_path):
    image = discs((300, 300), (100, 100, 20))
    path = write_raster(tmp_path / "a.tif", image)
    model = FloodModel()
    store = encode(model, path, tmp_path / "f.zarr", scales=[1])
    assert model.encoded == len(store.grid(1)) == 9
    asked = clicks(path, [(100, 100)])
    path.unlink()
    again = FloodModel()
    for source in (store, tmp_path / "f.zarr"):
        assert segment(again, source, asked)["status"].tolist() == ["ok"]
    assert again.encoded == 0
    with pytest.raises(StoreIncomplete, match="never encoded"):
        segment(again, store, asked, scales=[2])


def test_a_store_finds_its_raster_from_any_folder(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", discs((300, 300), (100, 100, 20)))
    monkeypatch.chdir(tmp_path)
    store = encode(FloodModel(), "a.tif", "f.zarr", scales=[4])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = segment(FloodModel(), tmp_path / store.path, clicks(path, [(100, 100)]), scales=[1])
    assert found["status"].tolist() == ["ok"]


def test_encode_covers_all_coarser_scales_and_resumes(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((300, 300), (100, 100, 20)))
    model = FloodModel()

    def stop(done, _total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(model, path, progress=stop)
    seen = []
    store = encode(model, path, progress=lambda done, total: seen.append((done, total)))
    assert model.encoded == sum(len(store.grid(s)) for s in (1, 2, 4)) == 9 + 4 + 1
    assert seen[-1][0] == seen[-1][1] <= 10
    assert not store.missing(1)
    assert store.missing(0.5)
    assert encode(model, path).path == store.path
    assert model.encoded == 14


def test_nodata_tiles_cost_no_encode(tmp_path):
    image = discs((600, 640), (60, 60, 20))
    image[:, 128:] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    model = FloodModel()
    store = encode(model, path, scales=[1])
    states = [store.status(tile) for tile in store.grid(1)]
    assert set(states) == {"done", "empty"}
    assert model.encoded == states.count("done")


def test_a_store_of_something_else_is_refused_naming_both(tmp_path):
    one = write_raster(tmp_path / "a.tif", discs((200, 200), (60, 60, 20)))
    two = write_raster(tmp_path / "b.tif", discs((200, 200), (90, 90, 20)))
    three = write_raster(tmp_path / "c.tif", np.stack([discs((200, 200), (60, 60, 20))] * 4))
    store = tmp_path / "f.zarr"
    encode(FloodModel(), one, store)
    with pytest.raises(StoreMismatch, match="raster"):
        encode(FloodModel(), two, store)
    with pytest.raises(StoreMismatch, match=r"flood-0.*flood-1"):
        encode(FloodModel(name="flood-1"), one, store)
    with pytest.raises(StoreMismatch, match=r"flood-0.*flood-1"):
        segment(FloodModel(name="flood-1"), store, clicks(one, [(60, 60)]))
    with pytest.raises(StoreMismatch, match=r"precision fp32 \(expected bf16.*Load.* in fp32"):
        encode(FloodModel(precision="bf16"), one, store)
    with pytest.raises(StoreMismatch, match=r"precision fp32 \(expected bf16"):
        segment(FloodModel(precision="bf16"), store, clicks(one, [(60, 60)]))
    with pytest.raises(StoreMismatch, match="grids"):
        encode(FloodModel(size=64), one, store)
    encode(FloodModel(), three, tmp_path / "g.zarr", bands=[3, 2, 1])
    with pytest.raises(StoreMismatch, match=r"\[3, 2, 1\].*\[1, 2, 3\]"):
        encode(FloodModel(), three, tmp_path / "g.zarr")


def test_a_store_that_names_no_precision_is_in_single(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((200, 200), (60, 60, 20)))
    store = encode(FloodModel(), path, tmp_path / "f.zarr")
    about = tmp_path / "f.zarr" / "zarr.json"
    attributes = json.loads(about.read_text())
    del attributes["attributes"]["meta"]["precision"]
    about.write_text(json.dumps(attributes))
    model = FloodModel()
    assert encode(model, path, store.path).meta.get("precision") is None
    assert model.encoded == 0
    with pytest.raises(StoreMismatch, match=r"precision fp32 \(expected bf16"):
        encode(FloodModel(precision="bf16"), path, store.path)


def test_wrong_wishes_are_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((200, 200), (60, 60, 20)))
    asked = clicks(path, [(60, 60)])
    with pytest.raises(BandError, match=r"bands \(2,\)"):
        segment(FloodModel(), path, asked, bands=[2])
    with pytest.raises(ModelError, match="scale 3"):
        segment(FloodModel(), path, asked, scales=[3])
    with pytest.raises(PromptError, match="none"):
        segment(FloodModel(), path, PromptSet(()))


def test_a_mask_is_never_true_where_there_is_no_data(tmp_path):
    image = discs((200, 200), (60, 60, 30))
    image[55:60, 40:80] = 0
    image[62, 66] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    asked = PromptSet.of(boxes=[(516_121, 5_160_865, 516_191, 5_160_935)])
    polygon = segment(FloodModel(), path, asked)
    assert polygon["scale"].tolist() == [2]
    assert polygon["status"].tolist() == ["ok"]
    for row, col in np.argwhere(image == 0):
        pixel = box(516_096 + col, 5_160_960 - row - 1, 516_096 + col + 1, 5_160_960 - row)
        assert polygon.geometry[0].intersection(pixel).area < 1e-6


@pytest.mark.parametrize("raster_is_there", [True, False])
def test_scattered_nodata_costs_an_object_only_its_own_area(tmp_path, raster_is_there):
    image = discs((600, 600), (300, 300, 150))
    holes = np.random.default_rng(0).random(image.shape) < 0.02
    image[holes] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    x, y = 516_096 + 300, 5_160_960 - 300
    asked = PromptSet.of(boxes=[(x - 150, y - 150, x + 150, y + 150)])
    model = FloodModel()
    model.decode = lambda features, prompts, *, multimask: (
        np.where(np.ones((len(prompts), 1, 128, 128), bool), 4, -4).astype(np.float32),
        np.ones((len(prompts), 1), np.float32),
    )
    store = encode(model, path, scales=[8])
    if not raster_is_there:
        path.unlink()
    (polygon,) = segment(model, store, asked).geometry
    with_data = (image > 0).sum()
    if raster_is_there:
        assert polygon.area == pytest.approx(with_data, rel=0.01)
    else:
        assert polygon.area < 0.5 * with_data
    for row, col in np.argwhere(image == 0)[::50]:
        pixel = box(516_096 + col, 5_160_960 - row - 1, 516_096 + col + 1, 5_160_960 - row)
        assert polygon.intersection(pixel).area < 1e-6


def test_points_that_share_no_tile_find_some_of_the_object_and_say_so(tmp_path):
    image = discs((600, 600), (50, 50, 20), (550, 550, 20))
    path = write_raster(tmp_path / "a.tif", image)
    both = [(516_146.5, 5_160_909.5), (516_646.5, 5_160_409.5)]
    asked = PromptSet.of(points=[np.array(both)])
    found = segment(FloodModel(), path, asked, scales=[1], simplify_m=0).iloc[0]
    assert found.status == "truncated"
    assert (burn(found.geometry, path) == (image == 200)).all()


def test_a_click_where_there_is_no_data_finds_nothing(tmp_path):
    image = discs((200, 200), (50, 50, 20))
    image[:, 150:] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)

    class Eager(FloodModel):
        def decode(self, features, prompts, *, multimask):
            return super().decode(features, [ELSEWHERE] * len(prompts), multimask=multimask)

    asked = clicks(path, [(50, 160), (50, 50)])
    assert segment(Eager(), path, asked)["status"].tolist() == ["empty", "ok"]


def test_features_of_a_raster_that_is_no_plain_file_go_to_the_cache(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", discs((200, 200), (60, 60, 20)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "a.tif")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = FloodModel()
    for _ in range(2):
        source = f"/vsizip/{tmp_path}/a.zip/a.tif"
        assert segment(model, source, clicks(path, [(60, 60)]))["status"][0] == "ok"
    assert model.encoded == 3
    assert len(list((tmp_path / "cache/geosam").glob("*-a.tif.flood-0.features.zarr"))) == 1


def test_features_on_a_url_serve_as_well(tmp_path):
    path = write_raster(tmp_path / "a.tif", discs((200, 200), (60, 60, 20)))
    model = FloodModel()
    url = "memory://geosam-verbs/f.zarr"
    for _ in range(2):
        assert segment(model, path, clicks(path, [(60, 60)]), store=url)["status"][0] == "ok"
    assert model.encoded == 3
    assert FeatureStore.open(url).meta["model"] == "flood-0"

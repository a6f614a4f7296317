"""Every object of a scene, with a model whose masks are known exactly."""

import multiprocessing
import signal
import time
from itertools import pairwise, product

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyproj import CRS
from scipy import ndimage

import geosam
from geosam.automatic.candidates import STRICT
from geosam.automatic.lattice import lattice
from geosam.automatic.objects import Objects
from geosam.automatic.painting import best_on_top, smallest_on_top
from geosam.automatic.tile_work import Plan, ask
from geosam.automatic.tiling import Grids
from geosam.cli import main
from geosam.errors import OutputExists, PromptError
from geosam.scene import Scene
from tests.fakes import FloodModel, discs, write_raster
from tiles import Frame, TileGrid

# Inside a tile, on an edge, on a corner of four tiles, and larger than the overlap on a corner.
PLACES = ((60, 48, 15), (40, 112, 12), (112, 112, 14), (104, 200, 40))
SHAPE = (216, 264)
DENSITY = 16  # points a tile's side: one every 8 px, a quarter of what tiles share


def scene_of(places=PLACES, shape=SHAPE):
    return discs(shape, *places)


def run(path, model=None, **options):
    found = geosam.everything(model or FloodModel(), path, density=DENSITY, **options)
    return pandas.concat(found, ignore_index=True)


def burn(polygon, path):
    with rasterio.open(path) as file:
        return rasterio.features.rasterize([polygon], file.shape, transform=file.transform) > 0


def off_the_border(polygons, shape, transform):
    """Polygons that do not touch the raster's border, as sorted texts of their corners."""
    height, width = shape
    frame = shapely.box(*(transform @ (1, height - 1)), *(transform @ (width - 1, 1)))
    inner = polygons[polygons.within(frame)]
    return sorted(shapely.to_wkt(shapely.normalize(inner.geometry.to_numpy()), 4))


def test_every_object_comes_out_whole_and_once(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    polygons = run(path)
    image = scene_of()
    assert polygons["id"].tolist() == list(range(1, len(polygons) + 1))
    assert set(polygons["status"]) == {"ok"}
    for value in (20, 200, 201, 202, 203):
        truth = image == value
        ious = []
        for polygon in polygons.geometry:
            found = burn(polygon, path)
            ious.append((truth & found).sum() / (truth | found).sum())
        assert sum(iou > 0.5 for iou in ious) == 1
        assert max(ious) >= (0.99 if value > 20 else 0.95)  # the ground is seen at a coarse scale
    assert len(polygons) == 5
    assert polygons["area_m2"].to_numpy() == pytest.approx(polygons.area.to_numpy(), rel=2e-3)
    assert polygons["perimeter_m"].to_numpy() == pytest.approx(polygons.length.to_numpy(), rel=1e-3)
    assert polygons["model"].unique().tolist() == ["flood-0"]
    assert polygons["scale"].tolist().count(1) == 4


SCENE = np.pad(scene_of(), 70, constant_values=20)


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 69), st.integers(0, 69), st.integers(0, 69), st.integers(0, 69))
def test_the_same_wherever_the_tile_grid_falls(tmp_path_factory, left, top, right, bottom):
    folder = tmp_path_factory.mktemp("shift")
    image = SCENE[top : SCENE.shape[0] - bottom, left : SCENE.shape[1] - right]
    transform = Affine(1, 0, 516_096 + left, 0, -1, 5_160_960 - top)
    path = write_raster(folder / "a.tif", image, transform=transform)
    found = off_the_border(run(path, scales=[1, 2]), image.shape, transform)
    if not hasattr(test_the_same_wherever_the_tile_grid_falls, "known"):
        test_the_same_wherever_the_tile_grid_falls.known = found
    assert len(found) == len(PLACES)
    assert found == test_the_same_wherever_the_tile_grid_falls.known


def test_files_that_overlap_give_no_object_twice(tmp_path):
    image, files = scene_of(), []
    for number, (rows, cols) in enumerate(product(((0, 130), (95, 216)), ((0, 140), (90, 264)))):
        part = image[slice(*rows), slice(*cols)]
        corner = Affine(1, 0, 516_096 + cols[0], 0, -1, 5_160_960 - rows[0])
        files.append(write_raster(tmp_path / f"{number}.tif", part, transform=corner))
    result = CliRunner().invoke(main, ["mosaic", *map(str, (tmp_path / "all.vrt", *files))])
    assert result.exit_code == 0, result.output
    whole = write_raster(tmp_path / "whole.tif", image)
    assert run(tmp_path / "all.vrt", scales=[1, 2]).equals(run(whole, scales=[1, 2]))


@pytest.mark.parametrize("shift", [(0, 0), (8, 0), (24, 40), (56, 64)])
def test_an_object_larger_than_a_tile_is_found_at_a_coarser_scale(tmp_path, shift):
    large = (200, 200, 75)  # 150 px across; a tile has 128
    image = np.roll(scene_of((large,), (448, 448)), shift, (0, 1))
    path = write_raster(tmp_path / "a.tif", image)
    polygons = run(path)
    truth = image == 200
    ious = [
        (truth & burn(p, path)).sum() / (truth | burn(p, path)).sum() for p in polygons.geometry
    ]
    (place,) = np.flatnonzero(np.array(ious) > 0.5)
    assert ious[place] >= 0.97
    assert polygons["scale"][place] == 2
    assert polygons["status"][place] == "ok"


def test_what_no_scale_holds_is_marked(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    assert set(run(path, scales=[1])["status"]) == {"ok"}  # even the ground, joined of all tiles
    corner = geopandas.GeoDataFrame(
        geometry=[shapely.box(516_097, 5_160_940, 516_116, 5_160_959)], crs="EPSG:32633"
    )
    (status,) = run(path, scales=[1], area=corner)["status"]  # one tile alone is asked
    assert status == "truncated"


def test_sizes_and_area_of_interest(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    every = run(path)
    model = FloodModel()
    some = run(path, model, min_area_m2=500, max_area_m2=5000)
    assert some.area.between(500, 5000).all()
    assert len(some) == every.area.between(500, 5000).sum() == 2
    assert some["id"].tolist() == [1, 2]
    assert model.encoded == 0
    spot = geopandas.GeoDataFrame(
        geometry=[shapely.Point(516_144, 5_160_900).buffer(8)], crs="EPSG:32633"
    ).to_crs("EPSG:4326")
    (one,) = run(path, area=spot, max_area_m2=5000).geometry
    assert burn(one, path)[60, 48]
    off = spot.set_geometry(spot.translate(1))
    with pytest.raises(PromptError, match=r"Area of interest: off the raster"):
        run(path, area=off)


class Shy(FloodModel):
    """The mask that it thinks most of is empty, the right one has a low score."""

    def decode(self, features, prompts, *, multimask, **how):
        logits, scores = super().decode(features, prompts, multimask=multimask, **how)
        logits[:, 0], scores[:, 0], scores[:, 1:] = -5, 0.3, 0.1
        return logits, scores


def test_ground_left_is_covered_by_whatever_mask_there_is(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    polygons = run(path, Shy(), coverage=True)
    assert polygons.area.sum() > 0.95 * SHAPE[0] * SHAPE[1]
    assert run(path, Shy()).empty


def test_coverage_shares_out_the_ground(tmp_path):
    image = scene_of()
    image[:30, 200:] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    labels = tmp_path / "labels.tif"
    polygons = run(path, coverage=True, labels=labels)
    assert shapely.coverage_is_valid(polygons.geometry.to_numpy())
    with rasterio.open(labels) as file:
        assert file.dtypes == ("uint32",) and file.block_shapes == [(256, 256)] and file.nodata == 0
        painted = file.read(1)
    assert (painted[image == 0] == 0).all()
    assert (painted[image > 0] > 0).mean() >= 0.95
    assert set(np.unique(painted)) - {0} == set(polygons["id"])
    for value in (200, 201, 202, 203):  # one label an object
        own, counts = np.unique(painted[image == value], return_counts=True)
        assert counts.max() / counts.sum() > 0.98
        assert (painted == own[counts.argmax()]).sum() / counts.sum() < 1.05
    with pytest.raises(OutputExists):
        run(path, labels=labels)


def objects_of(*sides_and_scores, tier=0):
    """Squares with a common corner."""
    return Objects.of(
        [
            (shapely.box(0, 0, s, s), score, 1.0, tier, 1.0, (0, 0), False)
            for s, score in sides_and_scores
        ]
    )


@pytest.mark.parametrize(
    ("scores", "smallest", "best"),
    [
        ((0.9, 0.75), [0, 1], [1, 0]),  # a roof and one of its planes
        ((0.9, 0.85), [0, 1], [0, 1]),  # a roof and its chimney
        ((0.7, 0.8), [0, 1], [0, 1]),
    ],
)
def test_what_lies_on_top(scores, smallest, best):
    objects, labels = objects_of((20, scores[0]), (10, scores[1])), np.arange(2)
    assert smallest_on_top(objects, labels).tolist() == smallest
    assert best_on_top(objects, labels).tolist() == best


def test_a_sure_object_lies_over_unsure_ones():
    objects = Objects.joined([objects_of((10, 0.5)), objects_of((10, 0.9), tier=1)])
    for order in (smallest_on_top, best_on_top):
        assert order(objects, np.arange(2)).tolist() == [1, 0]


def test_labels_have_the_ids_of_the_polygons(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    polygons = run(path, labels=tmp_path / "labels.tif").set_index("id")
    with rasterio.open(tmp_path / "labels.tif") as file:
        painted = file.read(1)
    for row, col, _ in PLACES:
        polygon = polygons.geometry[painted[row, col]]
        assert burn(polygon, path)[row, col] and polygon.area < 6000


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.geojson", "a.parquet"])
def test_batches_are_written_as_they_come(tmp_path, name):
    path = write_raster(tmp_path / "a.tif", scene_of())
    geosam.write(geosam.everything(FloodModel(), path, density=DENSITY), tmp_path / name)
    read = geopandas.read_parquet if name.endswith("parquet") else geopandas.read_file
    written = read(tmp_path / name).to_crs("EPSG:32633")
    whole = run(path)
    assert sorted(written["id"]) == whole["id"].tolist()
    assert written["area_m2"].sum() == pytest.approx(whole["area_m2"].sum())
    assert written.area.sum() == pytest.approx(whole.area.sum(), rel=1e-3)
    assert {p.name for p in tmp_path.glob(".*")} == set()


def test_an_error_on_the_way_leaves_no_file_and_is_not_hidden(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())

    def broken():
        yield from geosam.everything(FloodModel(), path, density=DENSITY)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        geosam.write(broken(), tmp_path / "a.gpkg")
    assert not (tmp_path / "a.gpkg").exists()


class Slow(FloodModel):
    def decode(self, *args, **kwargs):
        time.sleep(0.01)
        return super().decode(*args, **kwargs)


def _in_a_process(path, begun):
    def told(done, _total):
        begun.send(done)

    for _ in geosam.everything(Slow(), path, density=DENSITY, progress=told):
        pass


class Counting(FloodModel):
    decoded = 0

    def decode(self, features, prompts, **kwargs):
        self.decoded += len(prompts)
        return super().decode(features, prompts, **kwargs)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for tiles in (2, 3):
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=_in_a_process, args=(path, theirs))
        process.start()
        done = 0
        while done < tiles:
            assert ours.poll(60)
            done = ours.recv()
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    rest, whole = Counting(), Counting()
    resumed = run(path, rest)
    untouched = write_raster(tmp_path / "b.tif", scene_of())
    expected = run(untouched, whole)
    assert 0 < rest.decoded < whole.decoded
    assert resumed.equals(expected)


def test_damaged_work_is_done_again(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    before = run(path)
    (folder,) = tmp_path.glob("*.objects")
    for number, file in enumerate(sorted(folder.glob("*/*.npz"))):
        file.write_bytes(file.read_bytes()[: 100 * number])
    assert run(path).equals(before)


def test_each_lattice_point_belongs_to_one_tile_and_stays_on_the_ground():
    crs = CRS("EPSG:32633")
    on_ground = []
    for shift in (0, 7, 33):
        frame = Frame((500, 450), Affine(0.5, 0, 3e5 + shift * 0.5, 0, -0.5, 4e6), crs)
        grid = TileGrid(frame.shape, 128, 32, 2, frame.anchor)
        points = np.concatenate([lattice(tile, 16, frame.anchor) for tile in grid])
        assert len(np.unique(points, axis=0)) == len(points)
        assert len(points) == pytest.approx(500 * 450 / 32**2, rel=0.1)
        on_ground.append(frame.to_world(points))
    for one, two in pairwise(on_ground):
        common = {tuple(p) for p in one.round(6)} & {tuple(p) for p in two.round(6)}
        assert len(common) >= 0.85 * len(one)


def test_the_lattice_on_the_ground_is_no_denser_at_a_quarter_than_at_a_half(tmp_path):
    scene = Scene.open(FloodModel(), write_raster(tmp_path / "a.tif", scene_of()))
    asked = {}
    for scale in (0.25, 0.5, 1.0):
        plan = Plan(scene, (scale,), Grids(scene, scale), 8, STRICT, None, tmp_path / "none")
        tiles = scene.store.grid(scale)
        asked[scale] = sum(len(ask(tile, plan).points) for tile in tiles)
    assert asked[0.25] == asked[0.5] == pytest.approx(216 * 264 / 4**2, rel=0.01)
    assert asked[1.0] == pytest.approx(216 * 264 / 8**2, rel=0.01)


def test_nano_finds_small_objects_if_they_are_asked_for(tmp_path):
    """Crowns of 12 px on a meadow."""
    random = np.random.default_rng(0)
    crown = scene_of([(r, c, 6) for r in (16, 48, 80) for c in (16, 48, 80)], (96, 96)) >= 200
    colours = np.where(crown, np.array([40, 90, 40])[:, None, None], [[[150]], [[140]], [[110]]])
    noisy = (colours + random.integers(0, 12, colours.shape)).astype(np.uint8)
    path = write_raster(tmp_path / "a.tif", noisy)
    met = {}
    for small in (False, True):
        found = pandas.concat(geosam.everything(geosam.load_model("nano"), path, small=small))
        overlaps = [burn(polygon, path) for polygon in found.geometry]
        parts, number = ndimage.label(crown)
        met[small] = sum(
            any((own & (parts == n)).sum() >= 0.5 * (own | (parts == n)).sum() for own in overlaps)
            for n in range(1, number + 1)
        )
    assert met[True] == 9 > met[False]


def test_squared_outlines_do_not_share_out_the_ground(tmp_path):
    path = write_raster(tmp_path / "a.tif", scene_of())
    result = CliRunner().invoke(main, ["everything", str(path), "--regular", "--coverage"])
    assert result.exit_code == 2
    assert "--regular and --coverage: both" in result.output

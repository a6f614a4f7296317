"""Training sets: what is in them, and that what comes back is what went out."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from shapely import MultiPolygon, Polygon, box

import geosam
from geosam.cli import main
from geosam.errors import LabelError, OutputExists
from geosam.exchange.coco import mask_of, run_lengths
from geosam.exchange.patches import SMALLEST_AREA_PX, windows_of
from geosam.exchange.yolo import one_ring
from tests.fakes import write_raster
from tiles import Window

LEFT, TOP = 516_096, 5_160_960
CRS = "EPSG:32633"


def to_ground(shape):
    return shapely.transform(shape, lambda xy: xy * (1, -1) + (LEFT, TOP))


def table_of(*shapes, **columns):
    return geopandas.GeoDataFrame(columns, geometry=[to_ground(s) for s in shapes], crs=CRS)


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (3, 160, 200), np.uint8)
    return write_raster(tmp_path_factory.mktemp("raster") / "town.tif", data)


def distance(one, other):
    """How far from the outline of one the two differ, m (a px is 1 m)."""
    coordinates = shapely.get_coordinates(shapely.segmentize(one ^ other, 0.1))
    return shapely.distance(shapely.points(coordinates), one.boundary).max(initial=0)


SQUARES = [box(x, y, x + 10, y + 8) for x in range(5, 200, 40) for y in range(5, 160, 40)]


def test_windows_cover_a_block_and_stay_in_it():
    block = Window(10, 20, 100, 50)
    windows = windows_of(block, 40, 10)
    assert [(w.col, w.row) for w in windows] == [
        (10, 20), (40, 20), (70, 20), (10, 30), (40, 30), (70, 30),
    ]  # fmt: skip
    assert all(block.contains(window) and window.shape == (40, 40) for window in windows)
    assert windows_of(Window(0, 0, 30, 20), 40, 10) == [Window(0, 0, 30, 20)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_coco_is_read_by_pycocotools_and_holds_the_same_ground(raster, tmp_path):
    ring = box(100, 20, 130, 40) - box(110, 25, 120, 35)
    two = MultiPolygon([box(10, 100, 20, 110), box(25, 100, 30, 110)])
    table = table_of(*SQUARES[:4], ring, two, use=[*"aaaa", "b", "b"])
    made = geosam.export(
        raster, table, tmp_path / "set", format="coco", class_column="use", size=40, val_share=0.3
    )
    assert set(made.images) == {"train", "val"}
    areas = {}
    for split in made.images:
        coco = COCO(tmp_path / "set/annotations" / f"{split}.json")
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["a", "b"]
        for image in coco.loadImgs(coco.getImgIds()):
            with Image.open(tmp_path / "set" / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
                left, top = image["transform"][2] - LEFT, TOP - image["transform"][5]
                with rasterio.open(raster) as whole:
                    window = ((top, top + picture.size[1]), (left, left + picture.size[0]))
                    assert (
                        whole.read(window=window) == np.moveaxis(np.asarray(picture), 2, 0)
                    ).all()
        for entry in coco.loadAnns(coco.getAnnIds()):
            row = entry["attributes"]["row"]
            areas[row] = areas.get(row, 0) + coco.annToMask(entry).sum()
    assert areas == {row: table.geometry[row - 1].area for row in areas}
    assert sorted(areas) == [1, 2, 3, 4, 5, 6]


def test_train_and_val_share_no_ground(raster, tmp_path):
    made = geosam.export(
        raster, table_of(*SQUARES), tmp_path / "set", format="chips", size=48, overlap=16
    )
    table = geopandas.read_parquet(tmp_path / "set/polygons.parquet")
    grounds = {}
    for split in ("train", "val"):
        bounds = []
        for path in (tmp_path / "set/images" / split).glob("*.tif"):
            with rasterio.open(path) as file:
                bounds.append(box(*file.bounds))
        assert len(bounds) == made.images[split]
        grounds[split] = shapely.union_all(bounds)
    assert grounds["train"].intersection(grounds["val"]).area == 0
    rows = {split: set(own["row"]) for split, own in table.groupby("split")}
    assert 0.1 <= len(rows["val"]) / len(SQUARES) <= 0.4
    assert rows["train"] | rows["val"] == set(range(1, len(SQUARES) + 1))
    again = geosam.export(
        raster, table_of(*SQUARES), tmp_path / "again", format="chips", size=48, overlap=16
    )
    assert again.images == made.images


def test_chips_have_the_raster_s_values_and_place_and_say_where_data_is(tmp_path):
    data = np.arange(2 * 64 * 64, dtype=np.uint16).reshape(2, 64, 64) + 1
    data[:, :8] = 0
    source = write_raster(tmp_path / "deep.tif", data, nodata=0)
    shapes = [box(2, 2, 30, 20), box(10, 40, 60, 60)]
    geosam.export(source, table_of(*shapes), tmp_path / "set", format="chips", size=32, val_share=0)
    table = geopandas.read_parquet(tmp_path / "set/polygons.parquet")
    assert table.crs == CRS
    assert table["cut"].tolist() == [False, True, True]
    for chip, own in table.groupby("chip"):
        with (
            rasterio.open(tmp_path / f"set/images/train/{chip}.tif") as file,
            rasterio.open(source) as whole,
        ):
            window = rasterio.windows.from_bounds(*file.bounds, whole.transform)
            valid = whole.dataset_mask(window=window)
            assert (file.dataset_mask() == valid).all()
            assert (file.read()[:, valid > 0] == whole.read(window=window)[:, valid > 0]).all()
            assert all(box(*file.bounds).covers(shape) for shape in own.geometry)
    second = shapely.union_all(table.geometry[table["row"] == 2])
    assert second.equals(to_ground(shapes[1]))


def test_yolo_lines_are_shares_of_the_image(raster, tmp_path):
    shapes = [box(16, 16, 48, 32), MultiPolygon([box(2, 2, 6, 6), box(8, 2, 12, 6)])]
    geosam.export(
        raster, table_of(*shapes, use=["b", 'a "x"']), tmp_path / "set", format="yolo",
        class_column="use", size=64, val_share=0,
    )  # fmt: skip
    (labels,) = (tmp_path / "set/labels/train").glob("*.txt")
    assert (tmp_path / "set/images/train" / f"{labels.stem}.png").exists()
    lines = [line.split() for line in labels.read_text().splitlines()]
    assert [line[0] for line in lines] == ["1", "0", "0"]
    with Image.open(tmp_path / "set/images/train" / f"{labels.stem}.png") as picture:
        size = picture.size
    ring = np.array(lines[0][1:], float).reshape(-1, 2) * size
    assert Polygon(ring).equals(box(16, 16, 48, 32))
    text = (tmp_path / "set/data.yaml").read_text()
    assert text == (
        'path: .\ntrain: images/train\nval: images/train\nnames:\n  0: "a \\"x\\""\n  1: "b"\n'
    )


@st.composite
def polygons(draw, span=150):
    """Star-shaped polygons, some with a hole."""
    x, y = (draw(st.floats(20, span - 20)) for _ in range(2))
    count = draw(st.integers(3, 12))
    radii = np.array(draw(st.lists(st.floats(4, 18), min_size=count, max_size=count)))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + draw(st.floats(0, 1))
    steps = np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
    shell = Polygon(steps + np.array([x, y]))
    if draw(st.booleans()):
        hole = Polygon(steps * 0.3 + np.array([x, y]))
        return shell - hole
    return shell


@given(polygons())
def test_one_ring_encloses_what_the_polygon_does(polygon):
    ring = np.array(one_ring(polygon).coords)
    x, y = ring.T
    area = abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
    assert area == pytest.approx(polygon.area)
    assert (ring[0] == ring[-1]).all()


def test_one_ring_goes_round_several_holes():
    holes = [box(2, 2, 4, 4), box(6, 2, 8, 4), box(2, 6, 4, 8)]
    plate = box(0, 0, 10, 10) - shapely.union_all(holes)
    ring = one_ring(plate)
    assert shapely.make_valid(Polygon(ring)).symmetric_difference(plate).area == pytest.approx(0)
    bridges = ring.length - plate.boundary.length
    assert bridges == pytest.approx(2 * (2 + 2 + 2))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(polygons(), min_size=1, max_size=4), st.sampled_from([0, 16]))
def test_coco_comes_back_within_a_pixel(raster, tmp_path_factory, shapes, overlap):
    folder = tmp_path_factory.mktemp("coco") / "set"
    table = table_of(*shapes)
    geosam.export(raster, table, folder, format="coco", size=64, overlap=overlap, val_share=0)
    back = geosam.import_coco(sorted((folder / "annotations").glob("*.json")))
    assert back.crs == CRS
    windows = windows_of(Window(0, 0, 200, 160), 64, overlap)
    images = [to_ground(box(w.col, w.row, w.right, w.bottom)) for w in windows]
    assert back["row"].tolist() == list(range(1, len(shapes) + 1))
    for mine, theirs in zip(table.geometry, back.geometry, strict=True):
        assert distance(mine, theirs) < 1  # slivers at images' edges are left out
        if not mine.interiors:  # else run lengths
            pieces = shapely.area(shapely.intersection(mine, images))
            slivers = pieces[pieces < SMALLEST_AREA_PX].sum()
            assert mine.symmetric_difference(theirs).area < 0.01 * mine.length + slivers


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_run_lengths_and_masks_are_inverse(cells):
    mask = np.array(cells).reshape(3, 4)
    counts = run_lengths(mask)
    assert sum(counts) == 12
    assert (mask_of(counts, (3, 4)) == mask).all()
    assert run_lengths(np.array([[1, 0], [1, 0]], bool)) == [0, 2, 2]


def test_labels_made_elsewhere_need_the_raster(raster, tmp_path):
    path = tmp_path / "labels.json"
    content = {
        "images": [{"id": 7, "file_name": "town.png", "width": 200, "height": 160}],
        "categories": [{"id": 3, "name": "roof"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[10, 10, 30, 10, 30, 20]]}
        ],
    }
    path.write_text(json.dumps(content))
    with pytest.raises(LabelError, match="do not say where they lie"):
        geosam.import_coco(path)
    (row,) = geosam.import_coco(path, raster=raster).itertuples()
    assert (row._1, row.image, row.row) == ("roof", "town.png", 0)
    assert row.geometry.equals(to_ground(Polygon([(10, 10), (30, 10), (30, 20)])))
    content["images"][0]["width"] = 100
    path.write_text(json.dumps(content))
    with pytest.raises(LabelError, match="200 x 160"):
        geosam.import_coco(path, raster=raster)
    content["annotations"][0]["category_id"] = 4
    content["images"][0]["width"] = 200
    path.write_text(json.dumps(content))
    with pytest.raises(LabelError, match="annotation 1"):
        geosam.import_coco(path, raster=raster)
    path.write_text("[]")
    with pytest.raises(LabelError, match="no 'images'"):
        geosam.import_coco(path)


def test_what_cannot_be_exported_is_refused_or_counted(raster, tmp_path):
    far = table_of(box(1000, 1000, 1010, 1010))
    with pytest.raises(LabelError, match="1 off the raster"):
        geosam.export(raster, far, tmp_path / "set", format="coco")
    one = table_of(box(10, 10, 20, 20))
    with pytest.raises(LabelError, match="all in one block"):
        geosam.export(raster, one, tmp_path / "set", format="coco")
    (tmp_path / "set").mkdir()
    with pytest.raises(OutputExists):
        geosam.export(raster, one, tmp_path / "set", format="coco", val_share=0)
    made = geosam.export(
        raster, table_of(box(-5, 10, 20, 20), box(40, 40, 40.5, 40.5)), tmp_path / "new",
        format="coco", val_share=0,
    )  # fmt: skip
    assert made.notes == {"cut": 1, "too small": 1}


def test_the_commands_there_and_back(raster, tmp_path):
    table_of(*SQUARES).to_file(tmp_path / "roofs.gpkg")
    words = ["export", raster, tmp_path / "roofs.gpkg", "--format", "coco", "--size", 64]
    result = CliRunner().invoke(main, [str(w) for w in [*words, "-o", tmp_path / "set"]])
    assert result.exit_code == 0, result.output
    assert "train:" in result.output and "val:" in result.output
    files = sorted((tmp_path / "set/annotations").glob("*.json"))
    words = ["import", *files, "-o", tmp_path / "back.gpkg"]
    result = CliRunner().invoke(main, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    back = geopandas.read_file(tmp_path / "back.gpkg")
    assert len(back) == len(SQUARES)
    assert set(back["class"]) == {"object"}


def test_a_turned_grid_comes_back_too(tmp_path):
    turned = Affine.translation(LEFT, TOP) @ Affine.rotation(25) @ Affine.scale(0.5, -0.5)
    source = write_raster(tmp_path / "t.tif", np.zeros((100, 100), np.uint8), transform=turned)
    shape = shapely.transform(box(20, 30, 80, 70), lambda xy: np.array(turned @ xy.T).T)
    table = geopandas.GeoDataFrame(geometry=[shape], crs=CRS)
    geosam.export(source, table, tmp_path / "set", format="coco", size=40, val_share=0)
    back = geosam.import_coco(tmp_path / "set/annotations/train.json")
    assert distance(back.geometry[0], shape) < 0.25

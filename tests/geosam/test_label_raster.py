import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize
from shapely import box

from geosam.errors import MaskError
from geosam.label_raster import outline_pixels, trace, trace_down
from geosam.polygons import vectorize
from tiles.errors import RasterError

PLACE = Affine(2, 0, 516_096, 0, -2, 5_160_960)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


def save(folder, labels, *, bands=1, place=PLACE, **profile):
    labels = np.asarray(labels)
    path = folder / "labels.tif"
    size = {"height": labels.shape[0], "width": labels.shape[1], "count": bands}
    kind = {"driver": "GTiff", "dtype": labels.dtype, "crs": "EPSG:32633", "transform": place}
    with rasterio.open(path, "w", **(size | kind | profile)) as dataset:
        dataset.write(labels, 1)
    return path


def burn(table, shape, place=PLACE):
    if not len(table):
        return np.zeros(shape, np.int64)
    pairs = zip(table.geometry, table.label, strict=True)
    return rasterize(pairs, shape, transform=place, dtype="float64").astype(np.int64)


label_arrays = hnp.arrays(
    np.int16,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 0, 1, 5, -3]),
)


@settings(max_examples=50)
@given(label_arrays)
def test_burning_the_polygons_gives_the_labels_back(folder, labels):
    table = vectorize(save(folder, labels))
    assert table.geometry.is_valid.all()
    np.testing.assert_array_equal(burn(table, labels.shape), labels)
    assert table.label.tolist() == sorted(table.label)
    if len(set(labels[labels != 0])) > 1:
        assert table.label.tolist() == sorted(set(labels[labels != 0]))


@settings(max_examples=50)
@given(label_arrays, st.integers(1, 5))
def test_the_size_of_the_blocks_does_not_matter(folder, labels, block):
    path = save(folder, labels)
    (names, whole, _), (names_in_blocks, in_blocks, _) = trace(path), trace(path, block=block)
    assert names == names_in_blocks
    assert shapely.equals(whole, in_blocks).all()
    counts = shapely.get_num_coordinates(in_blocks) - shapely.get_num_coordinates(whole)
    assert (counts == 0).all()


def test_one_label_gives_one_polygon_a_part(folder):
    table = vectorize(save(folder, np.uint8([[7, 0, 7], [7, 0, 0], [0, 7, 7]])))
    assert table.label.tolist() == [7, 7, 7]
    expected = [(0, -4, 2, 0), (4, -2, 6, 0), (2, -6, 6, -4)]
    for geometry, corners in zip(table.geometry, expected, strict=True):
        moved = np.array(corners) + np.array([516_096, 5_160_960] * 2)
        assert geometry.equals(box(*moved))
    assert table.area_m2.tolist() == pytest.approx([8, 4, 8], rel=1e-3)


def test_several_labels_give_one_record_each(folder):
    table = vectorize(save(folder, np.uint8([[9, 0, 9], [2, 2, 0]])))
    assert table.label.tolist() == [2, 9]
    assert table.geometry.geom_type.tolist() == ["Polygon", "MultiPolygon"]
    assert table.area_m2.tolist() == pytest.approx([8, 8], rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 255),
        ("int8", -128),
        ("uint16", 65_535),
        ("int32", -(2**31)),
        ("uint32", 2**32 - 1),
        ("int64", 2**62 + 1),
        ("uint64", 2**63 + 1),
    ],
)
def test_labels_of_any_width_are_kept(folder, dtype, value):
    labels = np.zeros((3, 3), dtype)
    labels[1, 1], labels[0, 0] = value, 1
    table = vectorize(save(folder, labels))
    assert table.label.tolist() == sorted([1, value])


def test_no_data_is_background(folder):
    labels = np.uint8([[255, 1], [2, 0]])
    assert vectorize(save(folder, labels, nodata=255)).label.tolist() == [1, 2]
    assert vectorize(save(folder, labels, nodata=0)).label.tolist() == [1, 2, 255]
    with rasterio.open(save(folder, labels), "r+") as dataset:
        dataset.write_mask(labels != 1)
    assert vectorize(folder / "labels.tif").label.tolist() == [2, 255]
    (folder / "labels.tif.msk").unlink(missing_ok=True)


def test_an_alpha_band_says_where_there_is_data(folder):
    path = save(folder, np.uint8([[1, 2]]), bands=2)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
        dataset.write(np.uint8([[0, 255]]), 2)
    assert vectorize(path).label.tolist() == [2]


def test_a_palette_does_not_matter(folder):
    path = save(folder, np.uint8([[1, 2]]))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 0, 255), 2: (0, 255, 0, 255)})
    assert vectorize(path).label.tolist() == [1, 2]


def test_a_raster_without_labels_has_no_rows(folder):
    path = save(folder, np.zeros((3, 3), np.uint8))
    for table in (vectorize(path), vectorize(path, simplify_m=1)):
        assert len(table) == 0
        assert list(table.columns) == ["label", "area_m2", "geometry"]
        assert table.crs == "EPSG:32633"


def test_holes_are_kept_and_a_diagonal_does_not_join():
    ring = np.ones((3, 3), int)
    ring[1, 1] = 0
    ((_, polygon),) = outline_pixels(ring)
    assert polygon.equals(box(0, 0, 3, 3) - box(1, 1, 2, 2))
    assert len(list(outline_pixels(np.eye(2, dtype=int)))) == 2


def test_small_parts_are_left_out_of_the_rows(folder):
    labels = np.uint8([[1, 1, 0, 1], [0, 0, 0, 0], [3, 0, 2, 2]])
    table = vectorize(save(folder, labels), min_area_m2=5)
    assert table.label.tolist() == [1, 2]
    assert table.geometry.geom_type.tolist() == ["Polygon", "Polygon"]
    assert table.index.tolist() == [0, 1]


def test_labels_that_touch_still_touch_when_simplified(folder):
    y, x = np.mgrid[:60, :60]
    labels = (1 + (x > y + 5 * np.sin(x / 4)) + 2 * (x + y > 70)).astype(np.uint8)
    path = save(folder, labels)
    exact, simple = vectorize(path), vectorize(path, simplify_m=4)
    assert shapely.coverage_is_valid(simple.geometry.values)
    assert simple.geometry.is_valid.all()
    assert shapely.get_num_coordinates(simple.geometry).sum() < 0.5 * (
        shapely.get_num_coordinates(exact.geometry).sum()
    )
    assert simple.union_all().area == pytest.approx(exact.union_all().area, rel=1e-3)
    for label in exact.label:
        before, after = (t.geometry[t.label == label].iloc[0] for t in (exact, simple))
        assert before.symmetric_difference(after).area < 0.1 * before.area


patches = hnp.arrays(
    np.uint8, st.tuples(st.integers(2, 6), st.integers(2, 6)), elements=st.integers(0, 3)
).map(lambda labels: np.kron(labels, np.ones((3, 3), np.uint8)))


@settings(max_examples=60)
@given(st.one_of(label_arrays, patches), st.integers(3, 9), st.sampled_from([2.0, 5.0, 20.0]))
def test_outlines_simplified_in_blocks_share_their_borders(folder, labels, block, simplify_m):
    path = save(folder, labels)
    names, parts, _ = trace(path, simplify_m=simplify_m, block=block)
    assert names == trace(path)[0]
    assert shapely.is_valid(parts).all()
    assert shapely.coverage_is_valid(parts)
    assert (shapely.area(parts) > 0).all()
    if labels.all():
        ground = shapely.union_all(parts)
        assert ground.geom_type == "Polygon" and not ground.interiors


def test_blocks_do_not_show_in_simplified_outlines(folder):
    y, x = np.mgrid[:90, :90]
    labels = (1 + (x > y + 5 * np.sin(x / 4)) + 2 * (x + y > 70)).astype(np.uint8)
    path = save(folder, labels)
    (_, whole, _), (_, in_blocks, _) = (trace(path, simplify_m=4, block=n) for n in (100, 30))
    assert len(whole) == len(in_blocks) == 4
    for one, other in zip(whole, in_blocks, strict=True):
        assert one.symmetric_difference(other).area < 0.02 * one.area


def test_a_clip_has_the_outlines_of_the_scene(folder):
    labels = np.kron(np.random.default_rng(0).integers(1, 5, (20, 20)), np.ones((3, 3), int))
    names, parts, _ = trace(save(folder, labels), simplify_m=5, block=10)
    place = PLACE @ Affine.translation(12, 6)
    path = save(folder, labels[6:46, 12:52], place=place)
    clip_names, clip, _ = trace(path, simplify_m=5, block=10)
    inner = box(*np.sort(np.array([place @ (12, 12), place @ (28, 28)]), axis=0).ravel())
    near = [(n, p) for n, p in zip(names, parts, strict=True) if inner.contains(p)]
    near_in_clip = [(n, p) for n, p in zip(clip_names, clip, strict=True) if inner.contains(p)]
    assert len(near) > 3
    assert [n for n, _ in near] == [n for n, _ in near_in_clip]
    assert all(a.equals(b) for (_, a), (_, b) in zip(near, near_in_clip, strict=True))


def test_what_ends_is_told_of_at_once(folder):
    labels = np.zeros((9, 6), np.uint8)
    labels[0, 0], labels[1:8, 2], labels[8, 5], labels[8, 0] = 1, 2, 3, 1
    rows = [(names, areas) for names, areas in trace_down(save(folder, labels), block=3)]
    assert [names for names, _ in rows] == [[], [], [1, 2, 3]]
    assert [area.geom_type for area in rows[2][1]] == ["MultiPolygon", "Polygon", "Polygon"]
    assert shapely.area(rows[2][1]).tolist() == [8, 28, 4]
    labels[8, 0] = 4
    rows = [names for names, _ in trace_down(save(folder, labels), block=3)]
    assert rows == [[1], [], [2, 3, 4]]


def test_a_part_is_simplified_alone_and_among_others(folder):
    y, x = np.mgrid[:30, :30]
    disc = ((x - 15) ** 2 + (y - 15) ** 2 < 150).astype(np.uint8)
    ring = np.where(disc, 1, 2).astype(np.uint8)
    (exact,) = vectorize(save(folder, disc)).geometry
    (alone,) = vectorize(save(folder, disc), simplify_m=3).geometry
    among = vectorize(save(folder, ring), simplify_m=3).geometry[0]
    for simple in (alone, among):
        assert shapely.get_num_coordinates(simple) < 0.7 * shapely.get_num_coordinates(exact)
        assert simple.symmetric_difference(exact).area < 0.1 * exact.area


@pytest.mark.parametrize("simplify_m", [0.1, 1, 100])
def test_simplifying_loses_no_label(folder, simplify_m):
    labels = np.random.default_rng(0).integers(0, 4, (20, 20)).astype(np.uint8)
    table = vectorize(save(folder, labels), simplify_m=simplify_m)
    assert table.label.tolist() == [1, 2, 3]
    assert table.geometry.is_valid.all()


def test_rotated_and_south_up_rasters_keep_their_place(folder):
    labels = np.uint8([[1, 1, 0], [0, 2, 0]])
    for place in (PLACE @ Affine.rotation(30), Affine(2, 0, 516_096, 0, 2, 5_160_960)):
        table = vectorize(save(folder, labels, place=place))
        np.testing.assert_array_equal(burn(table, labels.shape, place), labels)


def test_progress_counts_blocks(folder):
    calls = []
    trace(
        save(folder, np.ones((4, 6), np.uint8)),
        block=3,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("labels", "profile", "message"),
    [
        (np.ones((2, 2), np.float32), {}, "1 bands of float32"),
        (np.ones((2, 2), np.uint8), {"bands": 3}, "3 bands of uint8"),
    ],
)
def test_other_rasters_are_refused(folder, labels, profile, message):
    with pytest.raises(MaskError, match=message):
        vectorize(save(folder, labels, **profile))


def test_rasters_that_cannot_be_opened_or_placed_are_refused(folder):
    with pytest.raises(RasterError, match="missing"):
        vectorize(folder / "missing.tif")
    with pytest.raises(RasterError, match="no CRS"):
        vectorize(save(folder, np.ones((2, 2), np.uint8), crs=None))


def test_a_raster_is_named_by_whatever_gdal_reads(folder):
    path = save(folder, np.ones((2, 2), np.uint8))
    assert len(vectorize(f"/vsisubfile/0,{path}")) == 1
    assert len(vectorize(path.as_uri())) == 1

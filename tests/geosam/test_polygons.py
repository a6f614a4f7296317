import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS, Geod
from shapely import MultiPolygon, Polygon, box

from geosam.errors import MaskError
from geosam.masks import Mask
from geosam.polygons import outline, vectorize
from tiles.frame import Frame

UTM = CRS("EPSG:32633")


def frame(shape, cell=1.0, crs=UTM):
    return Frame(shape, Affine(cell, 0, 516_096, 0, -cell, 5_160_960), crs)


def pixels(shape):
    """A frame in which world coordinates are cell coordinates."""
    return Frame(shape, Affine.identity(), UTM)


def mask(logits, *, id="a", place=None, valid=None, status="ok"):
    if logits is not None:
        logits = np.asarray(logits, np.float32)
    place = place or pixels(logits.shape)
    return Mask(id, status, logits, place, valid, 0.9, 0.8, "0,1", 2.0, 1)


def exact(logits, **fields):
    return outline(mask(logits, **fields), simplify_m=0)


def smooth(seed, size=64, cells=8):
    coarse = np.random.default_rng(seed).normal(size=(cells, cells))
    return np.kron(coarse, np.ones((size // cells, size // cells))) + 0.1


logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    elements=st.sampled_from([-2, -1, -0.25, 0, 0.25, 1, 2]).map(np.float32),
)


# Where the outline runs


def test_the_outline_crosses_between_cells_where_the_logits_cross_zero():
    # Level in y; in x the logits fall from 3 at 0.5 to -1 at 1.5: 0 at 1.25.
    assert exact([[3, -1], [3, -1]]).equals(box(0, 0, 1.25, 2))
    assert exact([[-1, 1, -1]]).equals(box(1, 0, 2, 1))


def test_one_high_cell_is_a_diamond():
    high = np.full((3, 3), -1.0)
    high[1, 1] = 1
    diamond = Polygon([(1.5, 1), (2, 1.5), (1.5, 2), (1, 1.5)])
    assert exact(high).equals(diamond)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 4)])
def test_high_everywhere_is_the_full_extent(shape):
    height, width = shape
    full = box(0, 0, width, height)
    assert exact(np.ones(shape)).equals(full)
    simpler = outline(mask(np.ones(shape)))
    assert simpler.equals(full)
    assert shapely.get_num_coordinates(simpler) == 5


@given(logits)
def test_every_centre_is_on_its_side(values):
    shape = exact(values)
    row, col = np.indices(values.shape)
    inside = shapely.contains_xy(shape, col + 0.5, row + 0.5)
    np.testing.assert_array_equal(inside[values != 0], values[values != 0] > 0)


@given(logits, st.sampled_from([0, 0.1, None, 1, 10]))
def test_the_outline_is_valid_and_within_the_logits(values, simplify_m):
    shape = outline(mask(values), simplify_m)
    assert shape.is_valid
    assert shape.is_empty == (not (values > 0).any())
    assert shape.within(box(0, 0, *values.shape[::-1])) or shape.is_empty


@given(logits)
def test_the_outline_follows_the_array_when_it_is_turned(values):
    def turned(xy):
        return np.column_stack([xy[:, 1], values.shape[1] - xy[:, 0]])

    once = shapely.transform(exact(values), turned)
    assert exact(np.rot90(values)).symmetric_difference(once).area < 1e-9


def test_the_outline_does_not_depend_on_where_the_logits_end():
    whole = smooth(3)
    part = exact(whole[10:50, 20:60])
    moved = shapely.transform(part, lambda xy: xy + np.array([20, 10]))
    inner = box(21, 11, 59, 49)
    expected = exact(whole).intersection(inner)
    assert moved.intersection(inner).symmetric_difference(expected).area < 1e-9


def test_holes_and_parts_are_kept():
    logits = np.full((9, 9), -1.0)
    logits[1:8, 1:8] = 1
    logits[3:6, 3:6] = -1
    logits[4, 4] = 1
    shape = exact(logits)
    assert [len(part.interiors) for part in shape.geoms] == [1, 0]
    assert exact(-logits).symmetric_difference(box(0, 0, 9, 9) - shape).area < 1e-12


# No data


@given(logits, st.integers(1, 3), st.data())
def test_a_mask_is_never_true_where_there_is_no_data(values, factor, data):
    height, width = (length * factor for length in values.shape)
    valid = data.draw(hnp.arrays(bool, (height, width)))
    rows, cols = np.nonzero(~valid)
    gaps = shapely.union_all(shapely.box(cols, rows, cols + 1, rows + 1))
    gaps = shapely.transform(gaps, lambda xy: xy / factor)
    for simplify_m in (0, None):
        whole, cut = (outline(mask(values, valid=v), simplify_m) for v in (None, valid))
        assert cut.is_valid
        assert cut.intersection(gaps).area < 1e-9
        assert cut.symmetric_difference(whole - gaps).area < 1e-9


def test_no_data_cuts_along_pixel_edges():
    valid = np.ones((4, 4), bool)
    valid[1:3, 1] = False
    shape = outline(mask(np.ones((2, 2)), valid=valid), 0)
    assert shape.equals(box(0, 0, 2, 2) - box(0.5, 0.5, 1, 1.5))


def test_no_data_everywhere_leaves_nothing():
    (row,) = vectorize([mask(np.ones((2, 2)), valid=np.zeros((4, 4), bool))]).itertuples()
    assert (row.status, row.geometry, row.area_m2) == ("empty", None, 0)
    assert np.isnan(row.score)


# Simpler outlines


@pytest.mark.parametrize("cell", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("cells", [0.25, 1, 3])
def test_an_outline_moves_no_further_than_asked(cell, cells):
    values = smooth(1) + np.random.default_rng(1).normal(size=(64, 64)) * 0.3
    whole = mask(values, place=frame(values.shape, cell))
    metre = cell / max(whole.frame.pixel_size_m)
    before, after = outline(whole, 0), outline(whole, cells * cell)
    assert after.is_valid
    assert shapely.get_num_coordinates(after) < shapely.get_num_coordinates(before) / 1.5
    moved = shapely.distance(shapely.points(shapely.get_coordinates(before)), after.boundary)
    tolerance = cells * cell * metre * 1.0001
    assert moved.max() <= 2 * tolerance
    assert np.mean(moved <= tolerance) > 0.99


def test_by_default_an_outline_moves_by_a_quarter_of_a_cell():
    values = smooth(2)
    place = frame(values.shape, 2.0)
    quarter = outline(mask(values, place=place), 0.25 * max(place.pixel_size_m))
    assert outline(mask(values, place=place)).equals_exact(quarter)


def test_on_stretched_cells_the_longer_side_counts():
    values = smooth(4)
    place = Frame(values.shape, Affine(1e-5, 0, 15, 0, -1e-5, 70), CRS("EPSG:4326"))
    along_x, along_y = place.pixel_size_m
    assert along_x < 0.5 * along_y
    before, after = (outline(mask(values, place=place), m) for m in (0, 0.5))
    distance = before.boundary.hausdorff_distance(after.boundary) / 1e-5 * along_y
    assert 0 < distance <= 0.5001


# Rows


def test_one_row_a_mask_in_their_order():
    place = frame((2, 2))
    masks = [
        mask(np.ones((2, 2)), id="b", place=place),
        mask(None, id="a", place=place, status="outside"),
        mask(None, id="c", place=place, status="empty"),
        mask(-np.ones((2, 2)), id="d", place=place),
    ]
    table = vectorize(iter(masks))
    assert list(table.columns) == [
        *("id", "status", "score", "stability", "area_m2"),
        *("tile", "scale", "candidate", "geometry"),
    ]
    assert table["id"].tolist() == ["b", "a", "c", "d"]
    assert table["status"].tolist() == ["ok", "outside", "empty", "empty"]
    assert table["geometry"].isna().tolist() == [False, True, True, True]
    assert table["score"].isna().tolist() == [False, True, True, True]
    assert table["area_m2"].tolist()[1:] == [0, 0, 0]
    first = table.iloc[0]
    assert (first.score, first.stability, first.tile) == (0.9, 0.8, "0,1")
    assert (first.scale, first.candidate) == (2.0, 1)
    assert first.geometry.geom_type == "Polygon"
    assert first.geometry.equals(box(516_096, 5_160_958, 516_098, 5_160_960))
    assert table.crs == UTM


def test_two_parts_are_one_multipolygon():
    (geometry,) = vectorize([mask([[1, -1, -1, 1]])]).geometry
    assert geometry.equals(MultiPolygon([box(0, 0, 1, 1), box(3, 0, 4, 1)]))


def test_overlapping_masks_stay_two_polygons():
    first, second = vectorize([mask(np.ones((2, 2))), mask(np.ones((2, 2)))]).geometry
    assert first.equals(second)


def test_small_parts_are_left_out_and_holes_kept():
    values = np.full((9, 9), -1.0)
    values[0:5, 0:5] = 1
    values[2, 2] = -1
    values[7, 7] = 1
    place = frame(values.shape)
    everything = vectorize([mask(values, place=place)], simplify_m=0)
    large = vectorize([mask(values, place=place)], simplify_m=0, min_area_m2=0.6)
    assert everything.geometry[0].geom_type == "MultiPolygon"
    assert large.geometry[0].geom_type == "Polygon"
    assert len(large.geometry[0].interiors) == 1
    assert everything.area_m2[0] - large.area_m2[0] == pytest.approx(0.5, rel=1e-2)
    nothing = vectorize([mask(values, place=place)], min_area_m2=99)
    assert nothing[["status", "area_m2"]].values.tolist() == [["empty", 0]]


def test_no_masks_are_no_rows():
    table = vectorize([])
    assert len(table) == 0
    assert table.crs is None
    assert isinstance(table, geopandas.GeoDataFrame)
    assert table.dtypes.astype(str).drop(["geometry", "id", "status", "tile"]).to_dict() == {
        **dict.fromkeys(["score", "stability", "area_m2", "scale"], "float64"),
        "candidate": "int64",
    }


def test_masks_share_one_crs():
    other = mask(np.ones((2, 2)), place=frame((2, 2), crs=CRS("EPSG:32634")))
    with pytest.raises(MaskError, match=r"zone 34N \(expected WGS 84 / UTM zone 33N"):
        vectorize([mask(np.ones((2, 2))), other])


@pytest.mark.parametrize("option", ["min_area_m2", "simplify_m"])
@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_lengths_and_areas_are_not_negative(option, value):
    with pytest.raises(ValueError, match=option):
        vectorize([], **{option: value})


def test_progress_is_told_and_may_end_the_work():
    calls = []
    masks = [mask(np.ones((2, 2)))] * 3
    vectorize(masks, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vectorize(masks, progress=stop)


# Area


def test_area_is_measured_on_the_ellipsoid():
    web = Frame((10, 10), Affine(100, 0, 1_000_000, 0, -100, 8_400_000), CRS("EPSG:3857"))
    degrees = Frame((10, 10), Affine(0.001, 0, 15, 0, -0.001, 60), CRS("EPSG:4326"))
    paris = Frame((10, 10), Affine(0.001, 0, 1, 0, -0.001, 50), CRS("EPSG:4807"))
    feet = Frame((10, 10), Affine(10, 0, 6e6, 0, -10, 2e6), CRS("EPSG:2225"))
    for place in (web, degrees, paris, feet):
        (area,) = vectorize([mask(np.ones((10, 10)), place=place)]).area_m2
        along_cols, along_rows = place.pixel_size_m
        assert area == pytest.approx(100 * along_cols * along_rows, rel=1e-3)


def test_area_of_holes_does_not_count():
    values = np.ones((9, 9))
    values[3:6, 3:6] = -1
    whole, holed = (
        vectorize([mask(v, place=frame((9, 9)))], simplify_m=0).area_m2[0]
        for v in (np.ones((9, 9)), values)
    )
    hole = box(0, 0, 9, 9).area - exact(values).area
    assert whole - holed == pytest.approx(hole, rel=1e-2)


def test_area_across_the_antimeridian():
    place = Frame((2, 2), Affine(0.01, 0, 179.99, 0, -0.01, 0), CRS("EPSG:4326"))
    (area,) = vectorize([mask(np.ones((2, 2)), place=place)]).area_m2
    expected = Geod(ellps="WGS84").geometry_area_perimeter(box(0, -0.02, 0.02, 0))[0]
    assert area == pytest.approx(expected, rel=1e-6)


def test_area_without_an_ellipsoid_is_measured_on_the_plane():
    local = CRS('LOCAL_CS["site",UNIT["foot",0.3048],AXIS["x",EAST],AXIS["y",NORTH]]')
    (area,) = vectorize([mask(np.ones((2, 2)), place=frame((2, 2), 10, local))]).area_m2
    assert area == pytest.approx(400 * 0.3048**2)


def test_other_planets_have_their_own_ellipsoid():
    moon = CRS(
        'GEOGCS["Moon",DATUM["Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],'
        'UNIT["degree",0.0174532925199433]]'
    )
    place = Frame((1, 1), Affine(0.1, 0, 0, 0, -0.1, 0.05), moon)
    (area,) = vectorize([mask(np.ones((1, 1)), place=place)]).area_m2
    assert area == pytest.approx((np.radians(0.1) * 1_737_400) ** 2, rel=1e-4)


# Real life


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_rough_masks_become_valid_polygons(seed):
    values = smooth(seed) + np.random.default_rng(seed).normal(size=(64, 64))
    (geometry,) = vectorize([mask(values)]).geometry
    assert geometry.is_valid

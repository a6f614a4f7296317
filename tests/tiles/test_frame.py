import json
import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from tiles import Frame, ProjectionError, TilesError, Window

UTM10 = CRS("EPSG:32610")
WGS84 = CRS("EPSG:4326")
LOCAL_FEET = CRS('LOCAL_CS["site",UNIT["foot",0.3048]]')


def utm(shape=(100, 200)):
    return Frame(shape, Affine(10, 0, 500_000, 0, -10, 4_100_000), UTM10)


def degrees(left, top=10.0, shape=(100, 100), step=0.01):
    return Frame(shape, Affine(step, 0, left, 0, -step, top), WGS84)


@st.composite
def frames(draw):
    angle = math.radians(draw(st.floats(0, 360)))
    x_step, y_step = draw(st.floats(0.01, 100)), draw(st.floats(0.01, 100))
    flip = draw(st.sampled_from([1, -1]))
    x, y = draw(st.floats(4e5, 6e5)), draw(st.floats(4e6, 5e6))
    cos, sin = math.cos(angle), math.sin(angle)
    transform = Affine(cos * x_step, -sin * flip * y_step, x, sin * x_step, cos * flip * y_step, y)
    return Frame((50, 70), transform, UTM10)


def test_pixel_coordinates_start_at_the_corner_of_the_first_pixel():
    frame = utm()
    world = [[500_000, 4_100_000], [500_005, 4_099_995], [502_000, 4_099_000]]
    pixel = [[0, 0], [0.5, 0.5], [200, 100]]
    assert frame.to_pixel(world).tolist() == pixel
    assert frame.to_world(pixel).tolist() == world
    assert frame.bounds == (500_000, 4_099_000, 502_000, 4_100_000)


@given(frames(), st.floats(-100, 200), st.floats(-100, 200))
def test_world_and_back_is_the_same_place(frame, col, row):
    assert frame.to_pixel(frame.to_world([[col, row]])) == pytest.approx(
        np.array([[col, row]]), abs=1e-5
    )


@given(frames(), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.25, 0.5, 1, 2, 3]))
def test_a_crop_keeps_every_place_on_the_ground(frame, col, row, scale):
    crop = frame.crop(Window(col, row, 30, 10), scale)
    inside = np.array([[0, 0], [1.5, 2.5], [30, 10]])
    assert crop.to_world(inside / scale) == pytest.approx(
        frame.to_world(inside + np.array([col, row])), abs=1e-6
    )
    assert crop.shape == (math.ceil(10 / scale), math.ceil(30 / scale))


def test_points_come_from_any_crs_x_first():
    lon_lat = Transformer.from_crs(UTM10, WGS84, always_xy=True).transform(501_000, 4_099_500)
    assert utm().to_pixel([lon_lat], WGS84) == pytest.approx(np.array([[100, 50]]), abs=1e-4)


def test_a_raster_south_up_or_turned_by_90_degrees():
    south_up = Frame((4, 5), Affine(1, 0, 0, 0, 1, 0), UTM10)
    assert south_up.to_pixel([[2, 3]]).tolist() == [[2, 3]]
    turned = Frame((4, 5), Affine(0, 2, 10, 3, 0, 20), UTM10)
    assert turned.to_world([[1, 2]]).tolist() == [[14, 23]]
    assert turned.to_pixel([[14, 23]]).tolist() == [[1, 2]]
    assert turned.bounds == (10, 20, 18, 35)


@pytest.mark.parametrize("longitude", [-179.9, 180.1, 540.1])
def test_a_longitude_stands_for_all_its_turns(longitude):
    assert degrees(179.5).to_pixel([[longitude, 9.5]]) == pytest.approx(np.array([[60, 50]]))


def test_both_edges_of_a_world_raster_stay_where_they_are():
    world = degrees(-180, 90, (180, 360), 1)
    assert world.to_pixel([[-180, 90], [180, -90]]).tolist() == [[0, 0], [360, 180]]
    assert world.box_to_pixel((-180, -90, 180, 90)) == (0, 0, 360, 180)


@pytest.mark.parametrize("left", [-180.05, -179.95, 0.0, -0.1, 0.3])
def test_both_edges_of_any_world_raster_stay_where_they_are(left):
    world = degrees(left, 90, (1800, 3600), 0.1)
    edges = np.array([[0, 0], [3600, 1800]])
    assert world.to_pixel(world.to_world(edges)) == pytest.approx(edges, abs=1e-6)


def test_a_circle_of_400_grads():
    paris_in_grads = CRS("EPSG:4807")
    frame = Frame((10, 10), Affine(0.1, 0, -0.5, 0, -0.1, 50), paris_in_grads)
    assert frame.to_pixel([[399.6, 49.9]]) == pytest.approx(np.array([[1, 1]]))
    assert frame.pixel_size_m[1] == pytest.approx(10_000, rel=2e-3)


def test_a_box_across_the_antimeridian():
    box = degrees(179.5).box_to_pixel((179.9, 9, -179.9, 9.5))
    assert box == pytest.approx((40, 50, 60, 100))
    east = Frame((100, 100), Affine(1e4, 0, 300_000, 0, -1e4, 1_000_000), CRS("EPSG:32660"))
    xmin, _, xmax, _ = east.box_to_pixel((179, 0, -179, 1), WGS84)
    assert 0 < xmax - xmin < 30


def test_a_box_is_followed_along_its_curved_sides():
    frame = utm()
    box = (-123.5, 37.0, -122.5, 37.1)
    south = np.column_stack([np.linspace(-123.5, -122.5, 2001), np.full(2001, 37.0)])
    rows = frame.to_pixel(south, WGS84)[:, 1]
    assert rows[[0, -1]].max() < rows.max() - 10
    assert frame.box_to_pixel(box, WGS84)[3] == pytest.approx(rows.max(), abs=1)


def test_a_box_round_a_pole_is_no_longitude_range():
    polar = CRS("EPSG:3413")
    with pytest.raises(ProjectionError, match="round a pole"):
        degrees(0).box_to_pixel((-1e6, -1e6, 1e6, 1e6), polar)


@pytest.mark.parametrize("box", [(1, 0, 0, 1), (0, 1, 1, 0), (math.nan, 0, 1, 1)])
def test_a_box_inside_out_is_refused(box):
    with pytest.raises(ProjectionError, match="inside out"):
        utm().box_to_pixel(box)


def test_what_has_no_place_in_the_frame_is_refused():
    frame = utm()
    with pytest.raises(ProjectionError, match="order"):
        frame.to_pixel([[0, 0], [37.0, -122.14]], WGS84)
    with pytest.raises(ProjectionError, match="Mars"):
        frame.to_pixel([[0, 0]], CRS("ESRI:104905"))
    with pytest.raises(ProjectionError, match="no way"):
        frame.to_pixel([[0, 0]], LOCAL_FEET)
    with pytest.raises(TilesError):
        frame.to_pixel([[math.nan, 0]])


def test_points_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected \(N, 2\)"):
        utm().to_pixel([1, 2])


def test_a_pixel_has_its_size_on_the_ground():
    assert utm().pixel_size_m == pytest.approx((10, 10), rel=1e-3)
    east, north = Frame((2, 2), Affine(1, 0, -1, 0, -1, 61), WGS84).pixel_size_m
    assert east == pytest.approx(111_320 * math.cos(math.radians(60)), rel=3e-3)
    assert north == pytest.approx(111_412, rel=1e-3)
    mercator = Frame((2, 2), Affine(10, 0, 0, 0, -10, 8_399_738), CRS("EPSG:3857"))
    assert mercator.pixel_size_m == pytest.approx((5, 5), rel=5e-3)
    feet = Frame((2, 2), Affine(10, 0, 6e6, 0, -10, 2e6), CRS("EPSG:2227"))
    assert feet.pixel_size_m == pytest.approx((3.048, 3.048), rel=1e-3)
    stretched = Frame((2, 2), Affine(0, 2, 5e5, 3, 0, 4.1e6), UTM10)
    assert stretched.pixel_size_m == pytest.approx((3, 2), rel=1e-3)
    local = Frame((2, 2), Affine(10, 0, 0, 0, -10, 0), LOCAL_FEET)
    assert local.pixel_size_m == pytest.approx((3.048, 3.048))


@pytest.mark.parametrize("crs", [UTM10, WGS84, LOCAL_FEET, CRS("ESRI:104905"), CRS("EPSG:7415")])
def test_it_survives_json(crs):
    frame = Frame((3, 4), Affine(0.1, 0.2, 3, 0.4, -0.5, 6), crs)
    assert Frame.from_dict(json.loads(json.dumps(frame.to_dict()))) == frame


@pytest.mark.parametrize(
    ("shape", "transform"),
    [
        ((0, 1), Affine.identity()),
        ((1, 1), Affine(1, 2, 0, 2, 4, 0)),
        ((1, 1), Affine(math.nan, 0, 0, 0, 1, 0)),
    ],
)
def test_a_frame_that_cannot_be_is_refused(shape, transform):
    with pytest.raises(ValueError, match="Frame"):
        Frame(shape, transform, UTM10)


def test_a_scale_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="Scale"):
        utm().crop(Window(0, 0, 1, 1), 0)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.3, 0, 500_000.1, 0, -0.3, 4_000_000.2),
        Affine(8.983e-6, 0, -122.3, 0, -8.983e-6, 38.1),
        Affine(0.94, 0.342, 500_000, 0.342, -0.94, 5_000_000),
    ],
)
def test_a_crop_counts_from_the_same_place(transform):
    frame = Frame((3000, 4000), transform, UTM10)
    col, row = frame.anchor
    for left, top in ((0, 0), (1, 7), (2999, 1234)):
        assert frame.crop(Window(left, top, 10, 10)).anchor == (col - left, row - top)

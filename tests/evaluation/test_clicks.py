"""Where simulated clicks go."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import MultiPolygon, Point, Polygon, box

from geosam.evaluation.clicks import deepest_point, next_click

NOTHING = Polygon()


def test_the_first_click_is_the_pole_of_inaccessibility():
    room_and_corridor = box(0, 0, 10, 10) | box(10, 4, 60, 6)
    x, y, label = next_click(room_and_corridor, NOTHING)
    assert (x, y) == pytest.approx((5, 5), abs=0.7)  # not its centre of gravity, (15, 5)
    assert label == 1


def test_a_hole_is_not_clicked():
    ring = Point(50, 50).buffer(40) - Point(55, 50).buffer(20)
    click = next_click(ring, NOTHING)
    assert ring.contains(Point(click.x, click.y))
    assert click.x == pytest.approx(22.5, abs=1)  # the ring is widest on its left, from 10 to 35


def test_the_next_click_is_where_most_is_missed():
    truth = box(0, 0, 100, 20)
    answer = box(0, 0, 70, 20) | box(-6, 0, 0, 20)
    x, y, label = next_click(truth, answer)
    assert (x, label) == (pytest.approx(85, abs=6), 1)
    assert y == pytest.approx(10, abs=1)


def test_the_next_click_is_beside_the_object_where_too_much_was_taken():
    truth = box(0, 0, 20, 20)
    answer = box(4, 0, 50, 20)
    x, _, label = next_click(truth, answer)
    assert (x, label) == (pytest.approx(35, abs=6), 0)


def test_depth_counts_not_area():
    sliver, block = box(0, 0, 1000, 2), box(0, 50, 10, 60)
    truth = MultiPolygon([sliver, block])
    assert next_click(truth, NOTHING).y == pytest.approx(55, abs=0.5)


def test_the_same_place_is_not_clicked_twice():
    truth = box(0, 0, 20, 20)
    first = next_click(truth, NOTHING)
    second = next_click(truth, NOTHING, (first,))
    assert np.hypot(second.x - first.x, second.y - first.y) > 0.5


def test_where_nothing_is_wrong_there_is_no_click():
    truth = box(0, 0, 20, 20)
    assert next_click(truth, truth) is None


def test_an_empty_area_has_no_deepest_point():
    assert deepest_point(NOTHING)[2] == 0
    assert deepest_point(shapely.LineString([(0, 0), (5, 5)]))[2] == 0


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 30)] * 2), min_size=1))
def test_the_deepest_point_is_as_deep_as_any_grid_point(rectangles):
    area = shapely.union_all([box(x, y, x + w, y + h) for x, y, w, h in rectangles])
    x, y, depth = deepest_point(area)
    assert area.contains(Point(x, y))
    assert area.boundary.distance(Point(x, y)) == pytest.approx(depth)
    grid = shapely.points(*np.meshgrid(np.arange(0, 91, 3), np.arange(0, 91, 3)))
    depths = shapely.distance(grid, area.boundary)[shapely.contains(area, grid)]
    assert depth >= depths.max(initial=0) - 0.05 * np.sqrt(area.area)

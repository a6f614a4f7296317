import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiles import Window

windows = st.builds(
    Window, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9), st.integers(1, 9)
)


def pixels(window):
    if window is None:
        return set()
    return {
        (row, col)
        for row in range(window.row, window.bottom)
        for col in range(window.col, window.right)
    }


def test_its_edges_are_half_open():
    window = Window(col=2, row=3, width=4, height=5)
    assert (window.right, window.bottom, window.shape) == (6, 8, (5, 4))
    assert Window.spanning(2, 3, 6, 8) == window


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (-1, 1)])
def test_an_empty_one_is_refused(width, height):
    with pytest.raises(ValueError, match="expected at least 1 x 1"):
        Window(0, 0, width, height)


@given(windows, windows)
def test_intersection_and_containment_are_those_of_the_pixels(one, other):
    assert pixels(one & other) == pixels(one) & pixels(other)
    assert one.contains(other) == (pixels(one) >= pixels(other))


@given(windows, windows)
def test_slices_cut_the_same_pixels_from_whatever_array_holds_them(one, other):
    common = one & other
    if common is None:
        return
    rows, cols = np.mgrid[one.row : one.bottom, one.col : one.right]
    cut = common.slices(origin=one)
    assert set(zip(rows[cut].flat, cols[cut].flat, strict=True)) == pixels(common)


def test_slices_never_wrap_round():
    assert Window(1, 2, 3, 4).slices() == (slice(2, 6), slice(1, 4))
    with pytest.raises(ValueError, match="before"):
        Window(-1, 0, 3, 3).slices()
    with pytest.raises(ValueError, match="outside its origin"):
        Window(0, 0, 3, 3).slices(origin=Window(1, 0, 3, 3))


@pytest.mark.parametrize(
    ("scale", "shape"),
    [(1, (7, 10)), (2, (4, 5)), (10, (1, 1)), (0.5, (14, 20)), (1 / 3, (21, 30))],
)
def test_shape_at_a_scale_rounds_up(scale, shape):
    assert Window(5, 5, 10, 7).shape_at(scale) == shape

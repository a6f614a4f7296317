import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiles.resample import block_all, block_mean, enlarge

kinds = st.sampled_from([np.uint8, np.int16, np.uint16, np.int32])
chips = st.tuples(st.integers(1, 9), st.integers(1, 9), kinds).flatmap(
    lambda drawn: st.tuples(
        hnp.arrays(drawn[2], (2, *drawn[:2])),
        hnp.arrays(bool, drawn[:2]) | st.just(np.ones(drawn[:2], bool)),
    )
)
factors = st.integers(1, 10)


def test_a_block_is_the_mean_of_its_valid_pixels():
    data = np.array([[[1, 2, 5], [3, 99, 7]]], np.uint8)
    valid = np.array([[True, True, True], [True, False, False]])
    means, kept = block_mean(data, valid, 2)
    assert means.tolist() == [[[2, 5]]] and means.dtype == np.uint8
    assert kept.tolist() == [[True, True]]


def test_a_block_is_valid_where_half_of_its_pixels_in_the_raster_are():
    valid = np.array([[True, False, True], [True, False, False], [False, True, False]])
    _, kept = block_mean(np.zeros((1, 3, 3)), valid, 2)
    assert kept.tolist() == [[True, True], [True, False]]


def test_nan_and_nodata_take_no_part():
    data = np.array([[[np.nan, 2.0], [-9999.0, 4.0]]], np.float32)
    means, kept = block_mean(data, np.array([[False, True], [False, True]]), 2)
    assert means.tolist() == [[[3.0]]] and kept.all()


@given(chips, factors)
def test_block_means_agree_with_a_plain_loop(chip, factor):
    data, valid = chip
    means, kept = block_mean(data, valid, factor)
    whole = block_all(valid, factor)
    for row, col in np.ndindex(kept.shape):
        block = np.s_[row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        pixels = data[:, *block][:, valid[block]]
        assert whole[row, col] == valid[block].all()
        assert kept[row, col] == (2 * pixels.shape[1] >= valid[block].size)
        if pixels.size:
            assert means[:, row, col].tolist() == np.rint(pixels.mean(axis=1)).tolist()


@given(chips, factors, st.integers(0, 9), st.integers(0, 9))
def test_blocks_that_start_before_the_chip_are_those_of_a_padded_chip(chip, factor, top, left):
    data, valid = chip
    lead = (top % factor, left % factor)
    margin = ((lead[0], 0), (lead[1], 0))
    means, kept = block_mean(data, valid, factor, lead)
    padded = np.pad(data, ((0, 0), *margin)), np.pad(valid, margin)
    assert means.tolist() == block_mean(*padded, factor)[0].tolist()
    inside = np.pad(np.ones_like(valid), margin)
    whole = block_all(valid, factor, lead)
    assert (whole == block_all(padded[1] | ~inside, factor)).all()
    for row, col in np.ndindex(kept.shape):
        block = np.s_[row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        assert kept[row, col] == (2 * padded[1][block].sum() >= inside[block].sum())


@given(hnp.arrays(np.float32, (1, 7, 9), elements=st.floats(-1e6, 1e6, width=32)), factors)
def test_block_means_of_fractions_agree_with_a_plain_loop(data, factor):
    means, _ = block_mean(data, np.ones((7, 9), bool), factor)
    for row, col in np.ndindex(means.shape[1:]):
        block = np.s_[row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        assert np.isclose(means[0, row, col], data[0][block].mean(dtype=float), rtol=1e-5, atol=0.1)


def margins(data, valid):
    return np.pad(data, ((0, 0), (1, 1), (1, 1)), "edge"), np.pad(valid, 1, "edge")


def test_enlarging_interpolates_between_pixel_centres():
    data, valid = margins(np.array([[[0.0, 4.0]]]), np.ones((1, 2), bool))
    assert enlarge(data, valid, 2)[0].tolist() == [[[0, 1, 3, 4]] * 2]
    assert enlarge(data, valid, 4)[0][0, 0].tolist() == [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]


def test_enlarging_by_three_keeps_the_centres():
    data, valid = margins(np.arange(12.0).reshape(1, 3, 4), np.ones((3, 4), bool))
    assert (enlarge(data, valid, 3)[0][:, 1::3, 1::3] == data[:, 1:-1, 1:-1]).all()


@given(chips, st.integers(2, 4), st.integers(-(2**15), 2**15 - 1))
def test_pixels_that_are_not_valid_take_no_part_in_enlarging(chip, factor, value):
    data, valid = chip
    pixels, kept = enlarge(*margins(data, valid), factor)
    other, _ = enlarge(
        *margins(np.where(valid, data, np.array(value).astype(data.dtype)), valid), factor
    )
    assert (kept == np.kron(valid, np.ones((factor, factor), bool))).all()
    assert (pixels[:, kept] == other[:, kept]).all()


@given(st.integers(-100, 100), st.integers(2, 4))
def test_a_flat_surface_stays_flat(value, factor):
    valid = np.array([[True, False, True], [False, True, True]])
    flat = np.full((1, 2, 3), value, np.int16)
    pixels, kept = enlarge(*margins(flat, valid), factor)
    assert (pixels[:, kept] == value).all()

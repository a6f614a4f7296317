"""What is kept of a decoded mask: no specks, and the part that was clicked."""

import numpy as np
from scipy import ndimage

from geosam.tile_masks import part_at, without_specks


def test_specks_go_and_real_parts_and_holes_stay():
    mask = np.zeros((40, 40), bool)
    mask[4:24, 4:24] = True  # 400 cells
    mask[10, 10] = False
    mask[14:20, 14:20] = False  # 36 cells
    mask[30:36, 30:36] = True
    mask[1, 38] = True
    expected = mask.copy()
    expected[10, 10], expected[1, 38] = True, False
    assert (without_specks(mask) == expected).all()
    assert (without_specks(mask[:2]) == mask[:2]).all()


def test_a_lone_click_means_the_part_it_is_on():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = ndimage.binary_opening(rng.random((40, 50)) < 0.7)
        areas, _ = ndimage.label(mask)
        row, col = rng.integers(40), rng.integers(50)
        expected = areas == areas[row, col] if mask[row, col] else mask
        assert (part_at(mask, row, col) == expected).all()

"""Band values to the grey levels that models see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS

from geosam.protocol import FILL
from geosam.recipe import Stretch
from tests.fakes import NORTH_UP
from tiles import Chip, Frame

LOW, HIGH = (-300.0, 0.5, 100.0), (900.0, 250.25, 30_000.0)
KINDS = [np.uint16, np.int16, np.int32, np.float32, np.float64]


def chip_of(data, valid):
    return Chip(data, valid, valid, Frame(valid.shape, NORTH_UP, CRS("EPSG:32633")))


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_values_between_the_ends_become_levels_between_0_and_255(kind, data):
    if np.issubdtype(kind, np.integer):
        elements = st.integers(max(np.iinfo(kind).min, -70_000), min(np.iinfo(kind).max, 70_000))
    else:
        elements = st.floats(-70_000, 70_000, width=32)
    values = data.draw(hnp.arrays(kind, (3, 2, 3), elements=elements))
    image = Stretch((1, 2, 3), LOW, HIGH)(chip_of(values, np.ones((2, 3), bool)))
    for band, low, high in zip(range(3), LOW, HIGH, strict=True):
        for place in np.ndindex(2, 3):
            unit = (float(values[band][place]) - low) / (high - low)
            assert image[band][place] == round(min(max(unit, 0.0), 1.0) * 255)


@pytest.mark.parametrize("kind", [np.uint8, *KINDS])
def test_where_there_is_no_data_is_the_fill(kind):
    values = np.full((3, 1, 2), 77, kind)
    image = Stretch((1, 2, 3), (0.0,) * 3, (255.0,) * 3)(chip_of(values, np.array([[True, False]])))
    assert image[:, 0].T.tolist() == [[77] * 3, list(FILL)]

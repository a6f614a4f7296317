import numpy as np
import pytest
from affine import Affine
from pyproj import CRS

from geosam.errors import MaskError
from geosam.masks import Mask
from tiles.frame import Frame

FRAME = Frame((2, 3), Affine(1, 0, 0, 0, -1, 0), CRS("EPSG:32633"))
LOGITS = np.zeros((2, 3), np.float32)


def mask(**changes):
    fields = {"prompt_id": "a", "status": "ok", "logits": LOGITS, "frame": FRAME, "valid": None}
    fields |= {"score": 0.9, "stability": 0.8, "tile": "0,0", "scale": 1.0}
    return Mask(**(fields | changes))


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_validity_may_be_finer_than_the_logits(factor):
    valid = np.ones((2 * factor, 3 * factor), bool)
    assert mask(valid=valid).valid is valid


@pytest.mark.parametrize("status", ["empty", "outside"])
def test_nothing_found_has_no_logits(status):
    assert mask(status=status, logits=None).logits is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "fine"}, "status 'fine'"),
        ({"status": "empty"}, "status 'empty' with logits"),
        ({"logits": None}, "status 'ok' without logits"),
        ({"logits": LOGITS.astype(float)}, "logits are float64"),
        ({"logits": LOGITS.T}, r"logits are float32 \(3, 2\)"),
        ({"logits": LOGITS + np.float32(np.nan)}, "NaN"),
        ({"valid": np.ones((2, 3), np.uint8)}, "validity is uint8"),
        ({"valid": np.ones((4, 3), bool)}, r"validity is bool \(4, 3\)"),
        ({"valid": np.ones((1, 1), bool)}, r"validity is bool \(1, 1\)"),
        ({"valid": np.ones(6, bool)}, r"validity is bool \(6,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(MaskError, match=f"^Mask of prompt 'a': .*{message}"):
        mask(**changes)

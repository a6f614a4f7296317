"""Pictures of any size as the square images that SAM and SAM 2 take.

Sources: segment_anything/utils/transforms.py (ResizeLongestSide), modeling/sam.py (the padding);
sam2/utils/transforms.py. Maps never need it: their tiles are read in the size of the model.
"""

import numpy as np
from PIL import Image

from geosam.protocol import FILL, Images


def fit(picture: Images, size: int) -> Images:
    """The whole picture with its longest side `size`, at the upper left of a square.

    SAM's way. A point (x, y) of the picture, px, is at `size / max(H, W)` times that, but for the
    rounding of the shorter side.

    Args:
        picture: (H, W, 3) RGB.
        size: side S of the square, px.

    Returns:
        (3, S, S), `geosam.protocol.FILL` beyond the picture.
    """
    scale = size / max(picture.shape[:2])
    height, width = (max(int(side * scale + 0.5), 1) for side in picture.shape[:2])
    square = np.empty((size, size, 3), np.uint8)
    square[:] = FILL
    square[:height, :width] = _resized(picture, height, width)
    return square.transpose(2, 0, 1)


def squash(picture: Images, size: int) -> Images:
    """The picture made a square, whatever its proportions: SAM 2's way.

    Args:
        picture: (H, W, 3) RGB.
        size: side S of the square, px.

    Returns:
        (3, S, S).
    """
    return _resized(picture, size, size).transpose(2, 0, 1)


def _resized(picture: Images, height: int, width: int) -> Images:
    """(H, W, 3) -> (height, width, 3), without aliasing."""
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))

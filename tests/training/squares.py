"""A scene whose objects are known."""

import numpy as np

from geosam.training.scenes import Scene, make_scene


def scene(size: int = 300) -> Scene:
    """Bright squares, each a label."""
    image = np.full((size, size, 3), 60, np.uint8)
    labels = np.zeros((size, size), np.int32)
    for number, (row, col) in enumerate([(20, 30), (150, 160), (200, 40)], start=1):
        image[row : row + 50, col : col + 70] = 160 + 10 * number
        labels[row : row + 50, col : col + 70] = number
    return make_scene("buildings", image, labels)

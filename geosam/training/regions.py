"""Regions of unlabelled images as targets: what a click might mean where nobody drew anything.

As in UnSAM (Wang et al. 2024), objects are stood in for by the regions of a bottom-up segmentation,
here of one random coarseness a crop; only regions that are compact and differ from what surrounds
them are kept, and they count for less than objects that people drew.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from geosam.training.scenes import Image8, Labels

SEGMENTED_AT = 256  # side at which regions are looked for, px
COARSENESS = (80, 1200)  # of Felzenszwalb & Huttenlocher 2004
AREA = (0.002, 0.3)  # of the crop
LEAST_SOLIDITY = 0.8  # share of the convex hull that a region fills
RING_PX = 8  # more than the ring and the closing of gaps reach
LEAST_CONTRAST = 1.0  # difference to the ring round it, in spreads of the region's own colours


def regions(image: Image8, rng: np.random.Generator) -> Labels:
    """Labels (S, S) of the regions of an image (S, S, 3) that look like objects."""
    size = len(image)
    small = cv2.resize(image, (SEGMENTED_AT, SEGMENTED_AT), interpolation=cv2.INTER_AREA)
    coarseness = float(np.exp(rng.uniform(*np.log(COARSENESS))))
    parts = felzenszwalb(small, scale=coarseness, sigma=0.8, min_size=60) + 1
    areas = np.bincount(parts.ravel()) / parts.size
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.8), cv2.COLOR_RGB2LAB).astype(np.float32)
    labels = np.zeros(parts.shape, np.int32)
    for number in np.flatnonzero((areas >= AREA[0]) & (areas <= AREA[1])):
        place = around(parts == number)
        mask = opened(parts[place] == number)
        if mask.any() and is_object(mask, lab[place]):
            labels[place][mask > 0] = number
    return np.asarray(
        cv2.resize(labels.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST)
    ).astype(np.int32)


def around(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of a region and of the ring round it."""
    col, row, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (
        slice(max(0, row - RING_PX), row + height + RING_PX),
        slice(max(0, col - RING_PX), col + width + RING_PX),
    )


def opened(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A region without its frayed edge and its small holes; its largest part."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    clean = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    clean = cv2.morphologyEx(clean, cv2.MORPH_OPEN, kernel)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(clean)
    if len(stats) < 2:
        return np.zeros_like(clean)
    largest: NDArray[np.uint8] = (parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(
        np.uint8
    )
    return largest


def is_object(mask: NDArray[np.uint8], lab: NDArray[np.float32]) -> bool:
    """Whether a region is compact, and unlike the ring round it."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = outlines[0]
    hull = cv2.contourArea(cv2.convexHull(outline))
    if cv2.contourArea(outline) < LEAST_SOLIDITY * hull:
        return False
    ring = cv2.dilate(mask, np.ones((9, 9), np.uint8)) - cv2.dilate(mask, np.ones((3, 3), np.uint8))
    if not ring.any():
        return False
    own, around = lab[mask > 0], lab[ring > 0]
    difference = float(np.linalg.norm(own.mean(0) - around.mean(0)))
    return difference > LEAST_CONTRAST * float(np.linalg.norm(own.std(0))) and difference > 6

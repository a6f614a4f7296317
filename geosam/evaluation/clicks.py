"""Where a person would click next: deepest inside what is still wrong.

As in the evaluation of interactive segmentation (Sofiiuk et al., "Reviving Iterative Training with
Mask Guidance", 2021, section 4): the next click goes to the point farthest from the edge of the
error regions, on the object where it is missed and beside it where too much was taken. With no
answer yet, that is the object's pole of inaccessibility. Here regions are polygons, so nothing
depends on a pixel size.
"""

import math
from typing import NamedTuple

import numpy as np
import shapely
from shapely import MultiPoint, Polygon
from shapely.geometry.base import BaseGeometry

from geosam.prompts import BACKGROUND, FOREGROUND

CLICK_RADIUS_PX = 0.5  # ground that a click has spoken for: the same place is not clicked twice
_PRECISION = 0.02  # of the radius of a disc of the same area


class Click(NamedTuple):
    """A click in px of the raster; label 1 on the object, 0 beside it."""

    x: float
    y: float
    label: int


def next_click(
    truth: BaseGeometry, answer: BaseGeometry, clicks: tuple[Click, ...] = ()
) -> Click | None:
    """The next click, given the answer to the clicks so far; None where nothing is wrong.

    Args:
        truth: the object, px.
        answer: what was outlined, px; empty before the first click.
        clicks: so far.
    """
    missed, surplus = shapely.difference(truth, answer), shapely.difference(answer, truth)
    if clicks:
        points = MultiPoint([(click.x, click.y) for click in clicks])
        spoken_for = points.buffer(CLICK_RADIUS_PX)
        missed, surplus = missed - spoken_for, surplus - spoken_for
    x, y, depth = deepest_point(missed)
    beside_x, beside_y, beside_depth = deepest_point(surplus)
    if not max(depth, beside_depth):
        return None
    if depth >= beside_depth:
        return Click(x, y, FOREGROUND)
    return Click(beside_x, beside_y, BACKGROUND)


def deepest_point(area: BaseGeometry) -> tuple[float, float, float]:
    """The point of an area that is farthest from its edge, and how far; depth 0 without area."""
    best = (math.nan, math.nan, 0.0)
    parts = shapely.get_parts(shapely.get_parts(area))
    for part in sorted(parts, key=shapely.area, reverse=True):
        as_disc = math.sqrt(part.area / math.pi)
        if as_disc <= best[2] or not isinstance(part, Polygon):
            break  # no circle inside this part or a smaller one is larger
        circle = shapely.maximum_inscribed_circle(part, tolerance=as_disc * _PRECISION)
        (x, y), edge = shapely.get_coordinates(circle)
        depth = float(np.hypot(x - edge[0], y - edge[1]))
        if depth > best[2]:
            best = (float(x), float(y), depth)
    return best

"""The objects of all tiles and scales, each once, from the top of the raster down.

An object is dropped if a better one nearly equals it, whatever becomes of that one: so its fate
depends on its neighbourhood alone, and not on the order in which tiles are seen. It is settled when
nothing that is still to come can reach it; nothing is held in memory longer.
"""

import heapq
from collections.abc import Iterator

import numpy as np
import shapely

from geosam.automatic.candidates import DUPLICATE_IOU
from geosam.automatic.objects import Flags, Objects
from geosam.automatic.stitching import whole_objects
from geosam.automatic.tile_work import Plan


def sweep(plan: Plan) -> Iterator[Objects]:
    """The objects of a scene whose tiles have all been worked on, batch by batch."""
    sources = {scale: whole_objects(plan, scale) for scale in plan.scales}
    horizons = [(0.0, scale) for scale in plan.scales]  # a heap
    open_ones, lost = Objects.none(), np.empty(0, bool)
    while horizons:
        _, scale = heapq.heappop(horizons)
        step = next(sources[scale], None)
        if step is not None:
            horizon, new = step
            heapq.heappush(horizons, (horizon, scale))
            open_ones, lost = merged(open_ones, lost, new)
        lowest = horizons[0][0] if horizons else np.inf
        settled = open_ones.bounds[:, 3] < lowest
        if settled.any():
            yield open_ones.take(settled & ~lost)
            open_ones, lost = open_ones.take(~settled), lost[~settled]


def merged(old: Objects, lost: Flags, new: Objects) -> tuple[Objects, Flags]:
    """Old and new objects, and which of them a better one nearly equals."""
    both = Objects.joined([old, new])
    lost = np.concatenate([lost, np.zeros(len(new), bool)])
    tree = shapely.STRtree(both.outlines)
    ours, theirs = tree.query(both.outlines[len(old) :])
    ours += len(old)
    pair = theirs < ours
    ours, theirs = ours[pair], theirs[pair]
    areas = shapely.area(both.outlines)
    low, high = np.minimum(areas[ours], areas[theirs]), np.maximum(areas[ours], areas[theirs])
    pair = low >= DUPLICATE_IOU * high
    ours, theirs, total = ours[pair], theirs[pair], (low + high)[pair]
    shared = shapely.area(shapely.intersection(both.outlines[ours], both.outlines[theirs]))
    pair = shared >= DUPLICATE_IOU * (total - shared)
    ours, theirs = ours[pair], theirs[pair]
    ours_lose = _merit(both)[ours] > _merit(both)[theirs]
    lost[np.where(ours_lose, ours, theirs)] = True
    return both, lost


def _merit(objects: Objects) -> np.ndarray:
    """The place of each object among all, the best first."""
    order = np.lexsort(
        (
            np.arange(len(objects)), objects.scales, -objects.scores, objects.tiers,
            objects.truncated,
        )
    )  # fmt: skip
    place = np.empty(len(objects), np.int64)
    place[order] = np.arange(len(objects))
    return place

"""IoU of final polygons with those held out, through the same door that users take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

from geosam.evaluation.clicks import deepest_point
from geosam.evaluation.measures import iou
from geosam.prompts import PromptSet
from geosam.protocol import Model
from geosam.training.places import Place, Polygons
from geosam.verbs import segment

RESAMPLES = 2_000  # of the bootstrap
CLICKS = 3  # places in each polygon, each clicked alone
INNER = 0.5  # of the depth of the innermost point, that the other places have at least

IoUs = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """IoU of each polygon held out, (N,), from one click inside it and from its box.

    The click's is the mean over several places: one says too little of a few polygons.
    """

    click: IoUs
    box: IoUs

    @property
    def mean(self) -> float:
        """One figure to choose by."""
        return float((self.click.mean() + self.box.mean()) / 2)


def measure(
    model: Model,
    places: Sequence[Place],
    stores: Sequence[str | Path | None],
    *,
    bands: Sequence[int] | None = None,
    most: int | None = None,
) -> Marks:
    """Prompt the polygons that are held out, with lone clicks and with the box.

    Args:
        model: to measure.
        places: where polygons are held out.
        stores: of the features of each place's raster; None: beside the raster.
        bands: see `Stretch.of`.
        most: polygons to take, evenly spread over all; None: all.
    """
    wanted = sum(len(place.held_out) for place in places)
    every = 1 if most is None else max(1, -(-wanted // most))
    clicks: list[float] = []
    boxes: list[float] = []
    start = 0
    for place, store in zip(places, stores, strict=True):
        chosen = place.held_out[-start % every :: every]
        start += len(place.held_out)
        if not len(chosen):
            continue
        truth = shapely.transform(chosen, place.frame.to_world)
        asked = (
            PromptSet.of(points=place.frame.to_world(inner_points(chosen).reshape(-1, 2))),
            PromptSet.of(boxes=shapely.bounds(truth)),
        )
        for found, prompts, times in zip((clicks, boxes), asked, (CLICKS, 1), strict=True):
            polygons = segment(model, place.raster, prompts, store=store, bands=bands)
            pairs = zip(polygons.geometry, np.repeat(truth, times), strict=True)
            own = np.array([iou(a, b) for a, b in pairs]).reshape(-1, times)
            found += own.mean(1).tolist()
    return Marks(np.array(clicks), np.array(boxes))


def inner_points(polygons: Polygons) -> npt.NDArray[np.float64]:
    """Points inside polygons (N,), the innermost first, (N, CLICKS, 2); always the same."""
    points = []
    for polygon in polygons:
        x, y, depth = deepest_point(polygon)
        inner = geopandas.GeoSeries([polygon.buffer(-INNER * depth)])
        others = inner.sample_points(CLICKS - 1, rng=0)
        points.append(np.vstack([[x, y], shapely.get_coordinates(others.to_numpy())]))
    return np.array(points)


def innermost(polygons: Polygons) -> npt.NDArray[np.float64]:
    """The point of each polygon (N,) that is farthest from its outline, (N, 2)."""
    return np.array([deepest_point(polygon)[:2] for polygon in polygons])


def gain(before: IoUs, after: IoUs) -> tuple[float, float, float]:
    """Mean difference of paired IoUs (N,), and its 95 % interval by a seeded bootstrap."""
    difference = after - before
    draws = np.random.default_rng(0).integers(len(difference), size=(RESAMPLES, len(difference)))
    low, high = np.percentile(difference[draws].mean(1), (2.5, 97.5)).tolist()
    return float(difference.mean()), low, high

"""Measures of outlines and of scores."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

Floats = npt.NDArray[np.float64]

BINS = 10  # of the predicted score, in a reliability table
RESAMPLES = 1000
_STEP_PX = 0.5  # pieces that an outline is cut into to be compared


def iou(found: BaseGeometry | None, truth: BaseGeometry) -> float:
    """Area in common by area covered; 0 where nothing was found."""
    if found is None:
        return 0.0
    common = float(shapely.intersection(found, truth).area)
    return common / (found.area + truth.area - common) if common else 0.0


def boundary_f(answer: BaseGeometry, truth: BaseGeometry, tolerances: Sequence[float]) -> Floats:
    """F-score of an outline at each tolerance, in the polygons' unit.

    The harmonic mean of the share of the answer's outline that is at most so far from the true one
    and the share of the true one that is so near the answer's (Csurka et al., "What is a good
    evaluation measure for semantic segmentation?", 2013), measured along the lines.
    """
    if answer.is_empty:
        return np.zeros(len(tolerances))
    mine, true = answer.boundary, truth.boundary
    precision, recall = _shares_near(mine, true, tolerances), _shares_near(true, mine, tolerances)
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def clicks_needed(ious: Floats, wanted: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Clicks until an IoU is reached, and whether it never was.

    Args:
        ious: (N, K), after 1 to K clicks.
        wanted: IoU.

    Returns:
        (N,) clicks, K where it was never reached; (N,) True where it was not.
    """
    reached = ious >= wanted
    failed = ~reached.any(axis=1)
    needed: Floats = np.where(failed, ious.shape[1], reached.argmax(axis=1) + 1).astype(np.float64)
    return needed, np.asarray(failed)


def reliability(scores: Floats, ious: Floats) -> tuple[list[dict[str, float]], float]:
    """Whether a score of 0.8 means an IoU of 0.8.

    Args:
        scores: (N,) predicted IoU.
        ious: (N,) IoU that it was.

    Returns:
        For each tenth of the scores that occurs: its bounds, how many scores, their mean and the
        mean IoU; and the expected calibration error, which is the mean difference of those two
        means, each bin weighted by how many (Guo et al., "On calibration of modern neural
        networks", 2017). NaN where there are no scores.
    """
    bins = np.minimum((scores.clip(0, 1) * BINS).astype(int), BINS - 1)
    table = []
    for number in np.unique(bins):
        own = bins == number
        table.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "answers": int(own.sum()),
                "mean_score": float(scores[own].mean()),
                "mean_iou": float(ious[own].mean()),
            }
        )
    if not table:
        return [], float("nan")
    gaps = [row["answers"] * abs(row["mean_score"] - row["mean_iou"]) for row in table]
    return table, float(sum(gaps) / len(scores))


def intervals(values: Floats, seed: int) -> Floats:
    """The 95 % confidence intervals of means: bootstrap percentiles, drawing objects.

    Args:
        values: (N, F) F figures of each of N objects, N at least 1.
        seed: of the draws.

    Returns:
        (2, F) lower and upper ends.
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    means = [values[rng.integers(0, count, count)].mean(axis=0) for _ in range(RESAMPLES)]
    ends: Floats = np.percentile(np.array(means), (2.5, 97.5), axis=0)
    return ends


def _shares_near(line: BaseGeometry, other: BaseGeometry, tolerances: Sequence[float]) -> Floats:
    """How much of a line's length is at most so far from another, for each tolerance."""
    parts = shapely.get_parts(shapely.segmentize(line, _STEP_PX))
    coordinates, owners = shapely.get_coordinates(parts, return_index=True)
    starts, ends = coordinates[:-1], coordinates[1:]
    joined = owners[:-1] == owners[1:]
    middles, lengths = (starts + ends)[joined] / 2, np.hypot(*(ends - starts)[joined].T)
    points = shapely.points(middles)
    shapely.prepare(other)
    near = [shapely.dwithin(other, points, tolerance) for tolerance in tolerances]
    shares: Floats = np.array([lengths[is_near].sum() for is_near in near]) / lengths.sum()
    return shares

"""The masks of one tile: prompted in batches, filtered on their logits, each object once.

Source: Kirillov et al. 2023, Segment Anything, sec. 5 and app. B, automatic mask generation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from geosam.placement import PixelPrompt, Points, on_tile
from geosam.protocol import Features, Floats, Model
from geosam.tile_masks import STABILITY_OFFSET, Cells
from tiles import Tile

BATCH = 64  # points decoded at once; bounds the memory
LEAST = 16  # as many cost little more together than fewer; of few points a quarter goes ahead
SMALLEST_CELLS = 9  # of the logits: less is noise
DUPLICATE_IOU = 0.6  # above it two masks are one object
CONFIDENT = 0.8  # score from which points under a mask need not be asked
NEW_SHARE = 0.3  # of a relaxed mask must be ground that no stricter one has

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tier:
    """What a mask must reach at least.

    Attributes:
        score: the model's estimate of its IoU.
        stability: IoU of the masks at a higher and a lower threshold.
    """

    score: float
    stability: float


STRICT = (Tier(0.6, 0.4),)
RELAXED = (*STRICT, Tier(0.5, 0.3), Tier(0.35, 0.2), Tier(0.0, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """N masks of one tile.

    Attributes:
        logits: (N, s, s) float32.
        scores: (N,).
        tiers: (N,), the strictest one that each reaches, from 0.
        points: (N,), the point that each answers.
    """

    logits: Floats
    scores: Floats
    tiers: Ints
    points: Ints
    inside: Cells = field(init=False, repr=False)  # (N, s, s)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inside", self.logits > 0)

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: npt.NDArray[np.bool_] | Ints) -> "Candidates":
        """Some of them."""
        return Candidates(
            self.logits[chosen], self.scores[chosen], self.tiers[chosen], self.points[chosen]
        )

    def and_also(self, others: "Candidates") -> "Candidates":
        """These and others."""
        return Candidates(
            np.concatenate([self.logits, others.logits]),
            np.concatenate([self.scores, others.scores]),
            np.concatenate([self.tiers, others.tiers]),
            np.concatenate([self.points, others.points]),
        )

    def once(self) -> "Candidates":
        """Without those that a better one nearly equals, the best first."""
        order = np.lexsort((-self.scores, self.tiers))
        packed = np.packbits(self.inside.reshape(len(self), -1), axis=1)[order]
        rows = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}").ravel()
        _, first = np.unique(rows, return_index=True)  # most repeats are exact: cheap to find
        ranked = self.take(order[np.sort(first)])
        flat = ranked.inside.reshape(len(ranked), -1).astype(np.float32)
        both, areas = flat @ flat.T, flat.sum(1)
        alike = both >= DUPLICATE_IOU * (areas[:, None] + areas - both)  # (N, N)
        return ranked.take(~np.tril(alike, -1).any(1))


def find(
    model: Model,
    features: Features,
    tile: Tile,
    points: Points,
    data: Cells,
    tiers: Sequence[Tier],
) -> Candidates:
    """The masks that points find on a tile; a point under a confident mask is not asked.

    After the strict masks, the points on ground that none has are asked again for weaker ones.

    Args:
        model: that made the features.
        features: of the tile.
        tile: where the points lie.
        points: (N, 2) raster px, in the order in which they are asked.
        data: (s, s) cells with any data.
        tiers: strictest first; a mask below the last is no candidate.
    """
    cell = model.size / model.logits_size * tile.scale  # raster px
    cols, rows = ((points - (tile.read.col, tile.read.row)) // cell).astype(int).T
    every = [on_tile(click(point), tile, model.size, model.logits_size) for point in points]

    def decode(asked: Ints, least: float) -> tuple[Floats, Floats]:
        prompts = [every[i] for i in asked]
        return model.decode(features, prompts, multimask=True, min_score=least)

    kept = _none(model.logits_size)
    explained = ~data
    waiting = np.arange(len(points))
    size = min(BATCH, max(LEAST, len(points) // 4))
    while len(waiting := waiting[~explained[rows[waiting], cols[waiting]]]):
        asked, waiting = waiting[:size], waiting[size:]
        found = _judge(*decode(asked, tiers[0].score), asked, data, tiers[:1])
        if len(found):
            kept = kept.and_also(found.once()).once()
            explained = ~data | kept.inside[kept.scores >= CONFIDENT].any(0)
    if len(tiers) == 1:
        return kept
    taken = ~data | kept.inside.any(0)
    waiting = np.flatnonzero(~taken[rows, cols])
    weaker = _none(model.logits_size)
    for start in range(0, len(waiting), BATCH):
        asked = waiting[start : start + BATCH]
        found = _judge(*decode(asked, tiers[-1].score), asked, data, tiers)
        weaker = weaker.and_also(found)
    return kept.and_also(_on_new_ground(weaker, taken))


def click(point: Points) -> PixelPrompt:
    """The prompt of one lattice point (2,), raster px."""
    return PixelPrompt("", point[None], np.ones(1, np.int64), None, None, clipped=False)


def _none(side: int) -> Candidates:
    nothing = np.empty(0, np.int64)
    empty = np.empty((0, side, side), np.float32)
    return Candidates(empty, np.empty(0, np.float32), nothing, nothing)


def _judge(
    logits: Floats, scores: Floats, points: Ints, data: Cells, tiers: Sequence[Tier]
) -> Candidates:
    """Those of the masks (P, M, s, s) with scores (P, M) that reach a tier."""
    masks = scores.shape[1]
    promising = np.flatnonzero(scores >= tiers[-1].score)  # of P * M
    own = logits.reshape(-1, *data.shape)[promising]  # (N, s, s)
    own = np.where(data, own, np.minimum(own, -STABILITY_OFFSET))
    wide, narrow, size = (
        np.count_nonzero(own > level, axis=(1, 2))
        for level in (-STABILITY_OFFSET, STABILITY_OFFSET, 0)
    )
    stable = narrow / np.maximum(wide, 1)  # (N,)
    own_scores = scores.ravel()[promising]
    reached = np.array(
        [(own_scores >= tier.score) & (stable >= tier.stability) for tier in tiers]
    )  # (tiers, N)
    good = np.flatnonzero(reached.any(0) & (size >= SMALLEST_CELLS))
    return Candidates(
        own[good], own_scores[good], reached.argmax(0)[good], points[promising[good] // masks]
    )


def _on_new_ground(candidates: Candidates, taken: Cells) -> Candidates:
    """Those whose ground is mostly still left, the strictest and best being served first."""
    taken, chosen = taken.copy(), []
    for i in np.lexsort((-candidates.scores, candidates.tiers)):
        inside = candidates.inside[i]
        if np.count_nonzero(inside & ~taken) >= NEW_SHARE * np.count_nonzero(inside):
            chosen.append(i)
            taken |= inside
    return candidates.take(np.array(chosen, np.int64))

"""Training batches: crops with first prompts and targets, a pure function of (seed, step)."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geosam.training.crops import Crop

SMALLEST_TARGET_PX = 24
FARTHEST = 7  # cells of 4 px by which a crop is moved: less than one of the coarsest, 32 px


class Batch(NamedTuple):
    """B crops of side s with K prompts each.

    Attributes:
        images: (B, 3, s, s) uint8.
        targets: (B, K, s/4, s/4) share of each cell that the object covers.
        clicks: (B, K, 2) px, a point inside the object, pixel centres at 0.
        boxes: (B, K, 4) px, the object's extent, sometimes shaken.
        weights: (B, K) how much a target counts; 0 where a crop had no object.
        origins: (B, 2) px, where the crop lies in the model's image.
    """

    images: Tensor
    targets: Tensor
    clicks: Tensor
    boxes: Tensor
    weights: Tensor
    origins: Tensor


def seen_twice(batch: Batch, right: int, down: int) -> Batch:
    """The crops of a batch with margins where they are, and moved, with the same prompts.

    Args:
        batch: B crops, larger than wanted by FARTHEST cells.
        right: cells by which they are moved, from 1 to FARTHEST.
        down: likewise.

    Returns:
        2B crops, the moved ones last; these lie elsewhere in the model's image.
    """
    cells = batch.targets.shape[-1] - FARTHEST
    size = 4 * cells
    views = []
    for x, y in ((0, 0), (right, down)):
        corner = torch.cat([batch.clicks.new_full((1,), 4 * cell) for cell in (x, y)])
        views.append(
            Batch(
                batch.images[..., 4 * y : 4 * y + size, 4 * x : 4 * x + size],
                batch.targets[..., y : y + cells, x : x + cells],
                batch.clicks - corner,
                (batch.boxes - corner.repeat(2)).clamp(-0.5, size - 0.5),
                batch.weights,
                batch.origins.flip(0) if x else batch.origins,
            )
        )
    return Batch(*(torch.cat(parts) for parts in zip(*views, strict=True)))


class Draws(Protocol):
    """Where crops come from, such as `geosam.training.crops.Sampler`."""

    def draw(self, size: int, rng: np.random.Generator) -> Crop:
        """One crop of side `size`; every draw from `rng`."""
        ...


@dataclass(frozen=True, slots=True)
class Batches(Dataset[Batch]):
    """Batch number `step` is the same whenever it is asked for, so training can resume.

    Three batches of four hold `images` crops of half the model's side, which is where most is
    learned for a given cost; the fourth holds a quarter as many at the full side. With margins
    for `seen_twice` they are that much larger.
    """

    sampler: Draws
    seed: int
    images: int
    prompts: int
    model_size: int
    margins: bool = False

    def __getitem__(self, step: int) -> Batch:
        """Make one batch."""
        rng = np.random.default_rng((self.seed, step))
        full = step % 4 == 3
        size = self.model_size if full else self.model_size // 2
        count = self.images // 4 if full else self.images
        margin = 4 * FARTHEST if self.margins else 0
        crops = [self.sampler.draw(size + margin, rng) for _ in range(count)]
        parts = [objects(crop, self.prompts, rng, margin) for crop in crops]
        images = np.stack([np.moveaxis(crop.image, 2, 0) for crop in crops])
        room = (self.model_size - size) // 16
        origins = 16.0 * rng.integers(0, room + 1, (count, 2))
        targets, clicks, boxes, weights = (
            torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True)
        )
        return Batch(
            torch.from_numpy(images),
            targets,
            clicks,
            boxes,
            weights,
            torch.from_numpy(origins.astype(np.float32)),
        )


def objects(
    crop: Crop, count: int, rng: np.random.Generator, margin: int = 0
) -> tuple[NDArray[np.float32], ...]:
    """Targets (K, s/4, s/4), clicks (K, 2), boxes (K, 4) and weights (K,) of one crop.

    Args:
        crop: of side s, a multiple of 4.
        count: K.
        rng: every draw is from it.
        margin: px along the edges where no object is clicked, and none chosen for.
    """
    labels, size = crop.labels, len(crop.labels)
    inner = labels[margin : size - margin, margin : size - margin]
    targets = np.zeros((count, size // 4, size // 4), np.float32)
    clicks = np.zeros((count, 2), np.float32)
    boxes = np.tile(np.array([0, 0, 8, 8], np.float32), (count, 1))
    weights = np.zeros(count, np.float32)
    areas = np.bincount(inner.ravel())
    areas[0] = 0
    ids = np.flatnonzero(areas >= SMALLEST_TARGET_PX)
    if not len(ids):
        return targets, clicks, boxes, weights
    share = areas[ids] ** rng.uniform(0, 0.5)  # small ones too
    for k in range(count):
        chosen = rng.choice(ids, p=share / share.sum())
        mask = labels == chosen
        clicks[k] = margin + click_inside(mask[margin : size - margin, margin : size - margin], rng)
        boxes[k] = extent(mask, rng)
        cells = (size // 4, size // 4)
        targets[k] = cv2.resize(mask.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
        weights[k] = crop.weight
    return targets, clicks, boxes, weights


def click_inside(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """The innermost pixel for half of the draws, else one of the inner half of the object."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    part = mask[top : top + height, left : left + width].astype(np.uint8)
    edged = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(edged, cv2.DIST_L2, 3)
    least = depth.max() * (0.999 if rng.random() < 0.5 else rng.uniform(0.1, 0.6))
    inner = np.flatnonzero(depth >= least)
    row, col = divmod(int(inner[rng.integers(len(inner))]), depth.shape[1])
    return np.array([left + col - 1, top + row - 1], np.float32)


def extent(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """The object's box, px, pixel centres at 0; a third of the draws shaken by up to a tenth."""
    col, row, width, height = cv2.boundingRect(mask.astype(np.uint8))
    box = np.array([col, row, col + width, row + height], np.float64) - 0.5
    if rng.random() < 1 / 3:
        sides = np.tile(box[2:] - box[:2], 2)
        box = box + rng.uniform(-0.1, 0.1, 4) * np.maximum(sides, 4)
    return box.astype(np.float32)

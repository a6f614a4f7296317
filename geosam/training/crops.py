"""Training crops: a piece of a scene at a random scale, turned, recoloured; or something made."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geosam.training.composites import blend, compose, draw, texture
from geosam.training.regions import regions
from geosam.training.scenes import Image8, Labels, Scene

FILL = (124, 116, 104)  # ImageNet's mean grey levels stand where there is no data
KIND_WEIGHTS = {"buildings": 0.36, "fields": 0.26, "water": 0.15, "trees": 0.08, "nuclei": 0.03}
COMPOSITE_SHARE, DRAWING_SHARE, REGION_SHARE = 0.1, 0.08, 0.05  # of the crops
REGION_WEIGHT = 0.4  # of a target that nobody drew
PASTE_SHARE = 0.2  # of the crops of scenes
OBJECT_SIDE = (0.05, 0.85)  # longer side of the object as a share of the crop, half of the draws
LARGE_OBJECT_SIDE = (0.3, 1.6)  # the other half: as boxes are decoded, and clicks at fine scales
STRETCH = 1.15  # most by which one axis is stretched beside the other


@dataclass(frozen=True, slots=True)
class Crop:
    """A square image (S, S, 3) with labels (S, S), and how much its targets count."""

    image: Image8
    labels: Labels
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws crops from scenes and textures."""

    scenes: dict[str, list[Scene]]
    textures: list[Image8]

    def draw(self, size: int, rng: np.random.Generator) -> Crop:
        """One crop of side `size`, recoloured; every draw from `rng`."""
        lot = rng.random()
        if lot < DRAWING_SHARE:
            return Crop(*draw(size, rng))
        lot -= DRAWING_SHARE
        weight = 1.0
        if self.textures and lot < COMPOSITE_SHARE:
            image, labels = compose(self.textures, size, rng)
        elif self.textures and lot < COMPOSITE_SHARE + REGION_SHARE:
            image = texture(self.textures, size, rng).clip(0, 255).astype(np.uint8)
            labels, weight = regions(image, rng), REGION_WEIGHT
        else:
            crop = self.piece(size, rng)
            if rng.random() < PASTE_SHARE:
                crop = paste(self.piece(size, rng), crop, rng)
            image, labels = crop.image, crop.labels
        return Crop(recolour(image, rng), labels, weight)

    def piece(self, size: int, rng: np.random.Generator) -> Crop:
        """A crop of a labelled scene."""
        kinds = [kind for kind in KIND_WEIGHTS if self.scenes.get(kind)]
        weights = np.array([KIND_WEIGHTS[kind] for kind in kinds])
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        scenes = self.scenes[kind]
        counts = np.array([len(scene.ids) for scene in scenes]) ** 0.5
        return cut(scenes[rng.choice(len(scenes), p=counts / counts.sum())], size, rng)


def cut(scene: Scene, size: int, rng: np.random.Generator, scale: float | None = None) -> Crop:
    """A crop around a random instance.

    Args:
        scene: with at least one instance.
        size: of the crop, px.
        rng: every draw is from it.
        scale: crop px per scene px; None: such that the instance takes a random share of the crop.
    """
    xmin, ymin, xmax, ymax = scene.boxes[rng.integers(len(scene.boxes))]
    side = max(xmax - xmin, ymax - ymin)
    if scale is None:
        share = OBJECT_SIDE if rng.random() < 0.5 else LARGE_OBJECT_SIDE
        target = size * np.exp(rng.uniform(*np.log(share)))
        scale = float(np.clip(target / side, 1 / 12, 4))
    angle = rng.uniform(0, 360) if rng.random() < 0.4 else 90.0 * int(rng.integers(4))
    flip = 1 if rng.random() < 0.5 else -1
    linear = scale * turn(angle, flip)
    linear[rng.integers(2)] *= STRETCH ** rng.uniform(-1, 1)
    centre = np.array([(xmin + xmax) / 2, (ymin + ymax) / 2])
    slack = abs(size - side * scale) / 2 + 0.1 * size
    offset = size / 2 + rng.uniform(-slack, slack, 2) * rng.random() - linear @ centre
    return take(scene, size, linear, offset)


def turn(angle: float, flip: int) -> NDArray[np.float64]:
    """The plane turned by degrees, after a flip of its x if that is -1: (2, 2)."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[cos * flip, -sin], [sin * flip, cos]])


def take(scene: Scene, size: int, linear: NDArray[np.float64], offset: NDArray[np.float64]) -> Crop:
    """The crop of side `size` whose px are `linear @ scene_px + offset`."""
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    level = min(int(max(0, np.floor(np.log2(1 / scale)))), len(scene.pyramid) - 1)
    image = warp(scene.pyramid[level], linear, offset, 2**level, size, nearest=False)
    labels = warp(scene.labels, linear, offset, 1, size, nearest=True)
    return Crop(image.astype(np.uint8), labels.astype(np.int32))


def warp(
    source: NDArray[np.uint8] | NDArray[np.int32],
    linear: NDArray[np.float64],
    offset: NDArray[np.float64],
    factor: int,
    size: int,
    *,
    nearest: bool,
) -> NDArray[Any]:
    """Apply `out = linear @ scene_px + offset` to an image whose px are `factor` scene px."""
    matrix = np.hstack([linear * factor, offset[:, None]])
    matrix[:, 2] += matrix[:, :2].sum(1) * 0.5 - 0.5  # corner-based to centre-based coordinates
    inverse = cv2.invertAffineTransform(matrix)
    seen = inverse[:, :2] @ ((size - 1) * np.array([[0, 1, 0, 1], [0, 0, 1, 1]])) + inverse[:, 2:]
    last = np.array([source.shape[1] - 1, source.shape[0] - 1])
    left, top = np.clip(np.floor(seen.min(1)).astype(int) - 1, 0, last)
    right, bottom = np.clip(np.ceil(seen.max(1)).astype(int) + 2, (left + 1, top + 1), last + 1)
    part = source[top:bottom, left:right]  # scenes are much larger than crops
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    if nearest:
        values = cv2.warpAffine(
            part.astype(np.float32), matrix, (size, size), flags=cv2.INTER_NEAREST
        )
        return np.asarray(values)
    return np.asarray(
        cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=FILL)
    )


def paste(source: Crop, onto: Crop, rng: np.random.Generator) -> Crop:
    """Up to three whole objects of one crop, in other places of another."""
    image, labels = onto.image.astype(np.float32), onto.labels.copy()
    size = len(labels)
    whole = np.setdiff1d(
        source.labels, np.concatenate([source.labels[[0, -1]], source.labels[:, [0, -1]].T])
    )
    whole = whole[whole > 0]
    for chosen in rng.permutation(whole)[:3]:
        mask = (source.labels == chosen).astype(np.float32)
        col, row, width, height = cv2.boundingRect(mask.astype(np.uint8))
        right = rng.integers(-col, size - col - width + 1)
        down = rng.integers(-row, size - row - height + 1)
        shift = np.array([[1, 0, right], [0, 1, down]], np.float64)
        mask = cv2.warpAffine(mask, shift, (size, size))
        pasted: Image8 = cv2.warpAffine(source.image, shift, (size, size)).astype(np.uint8)
        blend(image, pasted, mask > 0, rng.uniform(0.4, 1.0))
        labels[mask > 0] = labels.max() + 1
    return Crop(image.astype(np.uint8), labels)


def recolour(image: Image8, rng: np.random.Generator) -> Image8:
    """Random radiometry: gain, gamma, saturation, tint, haze, blur and noise."""
    levels = np.arange(256) / 255
    if rng.random() < 0.8:
        levels = levels * rng.uniform(0.7, 1.35) + rng.uniform(-0.1, 0.1)
        levels = np.clip(levels, 0, 1) ** rng.uniform(0.7, 1.4)
    x: NDArray[Any] = cv2.LUT(image, levels.astype(np.float32))
    mix = np.eye(3)
    if rng.random() < 0.5:
        saturation = rng.uniform(0.0, 1.6)
        mix = saturation * mix + (1 - saturation) / 3
    if rng.random() < 0.4:
        mix *= rng.uniform(0.85, 1.15, (3, 1))
    if rng.random() < 0.08:
        mix = mix[rng.permutation(3)]
    x = cv2.transform(x, mix)
    if rng.random() < 0.25:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.25:
        spread = np.float32(rng.uniform(0.005, 0.04))
        x = x + spread * rng.standard_normal(x.shape, np.float32)
    new: Image8 = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    new[cv2.inRange(image, FILL, FILL) > 0] = FILL
    return new

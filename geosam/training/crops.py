"""Training crops: a piece of a scene at a random scale, turned, recoloured; or a composite."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geosam.training.scenes import Image8, Labels, Scene

FILL = (124, 116, 104)  # ImageNet's mean grey levels stand where there is no data
KIND_WEIGHTS = {"buildings": 0.36, "fields": 0.26, "water": 0.15, "trees": 0.08, "nuclei": 0.03}
COMPOSITE_SHARE = 0.15
OBJECT_SIDE = (0.05, 0.85)  # longer side of the object as a share of the crop


@dataclass(frozen=True, slots=True)
class Crop:
    """A square image (S, S, 3) with labels (S, S)."""

    image: Image8
    labels: Labels


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws crops from scenes and textures."""

    scenes: dict[str, list[Scene]]
    textures: list[Image8]

    def draw(self, size: int, rng: np.random.Generator) -> Crop:
        """One crop of side `size`, recoloured; every draw from `rng`."""
        if self.textures and rng.random() < COMPOSITE_SHARE:
            crop = compose(self.textures, size, rng)
        else:
            kinds = [kind for kind in KIND_WEIGHTS if self.scenes.get(kind)]
            weights = np.array([KIND_WEIGHTS[kind] for kind in kinds])
            kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
            scenes = self.scenes[kind]
            counts = np.array([len(scene.ids) for scene in scenes]) ** 0.5
            scene = scenes[rng.choice(len(scenes), p=counts / counts.sum())]
            crop = cut(scene, size, rng)
        return Crop(recolour(crop.image, rng), crop.labels)


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
        target = size * np.exp(rng.uniform(*np.log(OBJECT_SIDE)))
        scale = float(np.clip(target / side, 1 / 12, 4))
    level = min(int(max(0, np.floor(np.log2(1 / scale)))), len(scene.pyramid) - 1)

    angle = rng.uniform(0, 360) if rng.random() < 0.4 else 90 * rng.integers(4)
    flip = 1 if rng.random() < 0.5 else -1
    turn = np.deg2rad(angle)
    linear = scale * np.array(
        [[np.cos(turn) * flip, -np.sin(turn)], [np.sin(turn) * flip, np.cos(turn)]]
    )
    centre = np.array([(xmin + xmax) / 2, (ymin + ymax) / 2])
    slack = max(0.0, (size - side * scale) / 2) + 0.1 * size
    offset = size / 2 + rng.uniform(-slack, slack, 2) * rng.random() - linear @ centre

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
    if nearest:
        values = cv2.warpAffine(
            source.astype(np.float32), matrix, (size, size), flags=cv2.INTER_NEAREST
        )
        return np.asarray(values)
    return np.asarray(
        cv2.warpAffine(source, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=FILL)
    )


def recolour(image: Image8, rng: np.random.Generator) -> Image8:
    """Random radiometry: gain, gamma, saturation, tint, haze, blur and noise."""
    x: NDArray[Any] = image.astype(np.float32) / 255
    if rng.random() < 0.8:
        x = x * rng.uniform(0.7, 1.35) + rng.uniform(-0.1, 0.1)
        x = np.clip(x, 0, 1) ** rng.uniform(0.7, 1.4)
    grey = x.mean(2, keepdims=True)
    if rng.random() < 0.5:
        x = grey + (x - grey) * rng.uniform(0.0, 1.6)
    if rng.random() < 0.4:
        x = x * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    if rng.random() < 0.08:
        x = x[..., rng.permutation(3)]
    if rng.random() < 0.25:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.25:
        x = x + rng.normal(0, rng.uniform(0.005, 0.04), x.shape).astype(np.float32)
    new: Image8 = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    new[(image == FILL).all(2)] = FILL
    return new


def compose(textures: list[Image8], size: int, rng: np.random.Generator) -> Crop:
    """Shapes filled with real textures on another texture: parcels or scattered objects."""
    image: NDArray[Any] = texture(textures, size, rng)
    labels = np.zeros((size, size), np.int32)
    if rng.random() < 0.35:
        masks = parcels(size, rng)
    else:
        masks = [shape(size, rng) for _ in range(rng.integers(3, 14))]
    for number, mask in enumerate(masks, start=1):
        if mask.sum() < 30:
            continue
        fill = texture(textures, size, rng)
        if rng.random() < 0.4:  # nearly flat, as roofs and water are
            fill = fill * 0.25 + 0.75 * fill.mean((0, 1)) + rng.uniform(-40, 40, 3)
        if rng.random() < 0.3:
            cast = np.roll(mask, rng.integers(-6, 7, 2), (0, 1))[..., None]
            image = image * (
                1 - 0.5 * cv2.GaussianBlur(cast.astype(np.float32), (0, 0), 1)[..., None]
            )
        alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.4, 1.2))[..., None]
        image = image * (1 - alpha) + fill * alpha
        labels[mask] = number
    return Crop(np.clip(image, 0, 255).astype(np.uint8), labels)


def texture(textures: list[Image8], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random piece of a random texture, (size, size, 3)."""
    source = textures[rng.integers(len(textures))]
    side = int(rng.uniform(0.3, 1.0) * min(source.shape[:2]))
    row, col = (int(rng.integers(0, extent - side + 1)) for extent in source.shape[:2])
    piece: NDArray[Any] = np.rot90(source[row : row + side, col : col + side], int(rng.integers(4)))
    piece = cv2.resize(np.ascontiguousarray(piece), (size, size), interpolation=cv2.INTER_LINEAR)
    return piece.astype(np.float32) * rng.uniform(0.7, 1.3)


def parcels(size: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Cells of a stretched Voronoi diagram, a third of them kept."""
    seeds = rng.uniform(0, size, (rng.integers(6, 30), 2)).astype(np.float32)
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 3)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)
    axes[0] *= stretch
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    points = np.stack([cols, rows], -1) @ axes.T  # (size, size, 2)
    distance = ((points[:, :, None] - seeds @ axes.T) ** 2).sum(-1)  # (size, size, seeds)
    nearest = distance.argmin(2)
    metric = "L1" if rng.random() < 0.3 else "L2"
    if metric == "L1":
        nearest = np.abs(points[:, :, None] - seeds @ axes.T).sum(-1).argmin(2)
    return [nearest == i for i in range(len(seeds)) if rng.random() < 0.6]


def shape(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A filled random shape: rectangle, L, polygon or blob."""
    centre = rng.uniform(0, size, 2)
    radius = size * np.exp(rng.uniform(np.log(0.03), np.log(0.35)))
    kind = rng.integers(4)
    if kind == 0:  # rectangle
        w, h = radius, radius * rng.uniform(0.35, 1)
        outline = np.array([(-w, -h), (w, -h), (w, h), (-w, h)])
    elif kind == 1:  # L
        w, h, a, b = (
            radius,
            radius * rng.uniform(0.6, 1),
            rng.uniform(-0.3, 0.4),
            rng.uniform(-0.3, 0.4),
        )
        outline = np.array([(-w, -h), (w, -h), (w, b * h), (a * w, b * h), (a * w, h), (-w, h)])
    else:  # a star-shaped polygon, or a blob with smooth radii
        angles = np.linspace(
            0, 2 * np.pi, 64 if kind == 2 else int(rng.integers(4, 9)), endpoint=False
        )
        if kind == 2:
            radii = np.ones(64)
            for order in range(2, 7):
                radii += rng.normal(0, 0.35 / order) * np.cos(order * angles + rng.uniform(0, 7))
        else:
            radii = rng.uniform(0.6, 1.2, len(angles))
        outline = radius * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        outline[:, 1] *= rng.uniform(0.4, 1)
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    canvas = np.zeros((size, size), np.uint8)
    points = np.round((outline @ rotation.T + centre) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [points], 1, shift=4)
    return canvas.astype(bool)

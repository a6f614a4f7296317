"""Composites: random shapes filled with real textures, or with flat colours as in drawings."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geosam.training.scenes import Image8, Labels

FLAT_CONTRAST = 18  # least difference of two neighbouring flat colours, grey levels of one band


def compose(textures: list[Image8], size: int, rng: np.random.Generator) -> tuple[Image8, Labels]:
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
    return np.clip(image, 0, 255).astype(np.uint8), labels


def draw(size: int, rng: np.random.Generator) -> tuple[Image8, Labels]:
    """A drawing: shapes of perfectly flat colours, sharp or smoothed at their edges, no noise.

    Maps, plans, classified rasters and test images look like this; photographs never do.
    """
    ground = rng.uniform(0, 255, 3)
    image: NDArray[Any] = np.broadcast_to(ground, (size, size, 3)).copy()
    labels = np.zeros((size, size), np.int32)
    if rng.random() < 0.3:
        masks = parcels(size, rng)
    else:
        masks = [shape(size, rng) for _ in range(rng.integers(1, 10))]
    smooth = rng.random() < 0.4
    grey = rng.random() < 0.3
    for number, mask in enumerate(masks, start=1):
        if mask.sum() < 30:
            continue
        colour = flat_colour(image[mask].mean(0), rng, grey=grey)
        alpha: NDArray[Any] = mask[..., None].astype(np.float32)
        if smooth:
            alpha = cv2.GaussianBlur(alpha, (0, 0), 0.6)[..., None]
        image = image * (1 - alpha) + colour * alpha
        labels[mask] = number
    return np.clip(image, 0, 255).astype(np.uint8), labels


def flat_colour(
    behind: NDArray[np.float64], rng: np.random.Generator, *, grey: bool
) -> NDArray[np.float64]:
    """A colour (3,) that differs from what lies behind in at least one band."""
    while True:
        colour = rng.uniform(0, 255, 1 if grey else 3) * np.ones(3)
        if np.abs(colour - behind).max() >= FLAT_CONTRAST:
            return colour


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

"""Composites: random shapes filled with real textures, or with flat colours as in drawings."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geosam.training.scenes import Image8, Labels

FLAT_CONTRAST = 18  # least difference of two neighbouring flat colours, grey levels of one band


def compose(textures: list[Image8], size: int, rng: np.random.Generator) -> tuple[Image8, Labels]:
    """Shapes filled with real textures on another texture: parcels or scattered objects."""
    image = texture(textures, size, rng)
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
            plain = 0.75 * np.array(cv2.mean(fill)[:3]) + rng.uniform(-40, 40, 3)
            fill = fill * 0.25 + plain.astype(np.float32)
        if rng.random() < 0.3:
            cast = np.roll(mask, rng.integers(-6, 7, 2), (0, 1))[..., None]
            image = image * (
                1 - 0.5 * cv2.GaussianBlur(cast.astype(np.float32), (0, 0), 1)[..., None]
            )
        blend(image, fill, mask, rng.uniform(0.4, 1.2))
        labels[mask] = number
    return np.clip(image, 0, 255).astype(np.uint8), labels


def draw(size: int, rng: np.random.Generator) -> tuple[Image8, Labels]:
    """A drawing: shapes of perfectly flat colours, sharp or smoothed at their edges, no noise.

    Maps, plans, classified rasters and test images look like this; photographs never do.
    """
    ground = rng.uniform(0, 255, 3)
    image = np.broadcast_to(ground, (size, size, 3)).astype(np.float32)
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
        behind = np.array(cv2.mean(image, mask.view(np.uint8))[:3])
        colour = flat_colour(behind, rng, grey=grey).astype(np.float32)
        if smooth:
            blend(image, np.broadcast_to(colour, image.shape), mask, 0.6)
        else:
            image[mask] = colour
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
    return piece.astype(np.float32) * np.float32(rng.uniform(0.7, 1.3))


def blend(
    image: NDArray[np.float32],
    fill: NDArray[np.float32] | Image8,
    mask: NDArray[np.bool_],
    sigma_px: float,
) -> None:
    """Draw what fills a mask into an image (S, S, 3), its edge softened."""
    col, row, width, height = cv2.boundingRect(mask.view(np.uint8))
    margin = int(np.ceil(4 * sigma_px)) + 1
    rows = slice(max(0, row - margin), row + height + margin)
    cols = slice(max(0, col - margin), col + width + margin)
    alpha = cv2.GaussianBlur(mask[rows, cols].astype(np.float32), (0, 0), sigma_px)[..., None]
    image[rows, cols] = image[rows, cols] * (1 - alpha) + fill[rows, cols] * alpha


def parcels(size: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Cells of a stretched Voronoi diagram, a third of them kept."""
    seeds = rng.uniform(0, size, (rng.integers(6, 30), 2)).astype(np.float32)
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 3)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)
    axes[0] *= stretch
    rows, cols = np.mgrid[:size, :size].astype(np.float32)
    x, y = (axis[0] * cols + axis[1] * rows for axis in axes)  # (size, size) each
    measure = np.abs if rng.random() < 0.3 else np.square
    least = np.full((size, size), np.inf, np.float32)
    nearest = np.zeros((size, size), np.int32)
    for number, (seed_x, seed_y) in enumerate(seeds @ axes.T):
        distance = measure(x - seed_x) + measure(y - seed_y)
        nearest[distance < least] = number
        np.minimum(least, distance, out=least)
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

"""A model whose answers are known exactly, without torch; and scenes made in code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

from geosam.protocol import Features, Floats, Images, Precision, TilePrompt
from tiles import FeatureStore

SURE = 4.0
# A tile starts in its corner, at every scale and for tiles of 128, 512 and 1024 px.
NORTH_UP = Affine(1, 0, 516_096, 0, -1, 5_160_960)


class FloodModel:
    """Answers a prompt with the connected area of exactly the colour found there.

    A click gives the area of its colour round it; further clicks add and take away areas; a box
    gives what inside it has the colour of its centre; a rough mask without clicks gives the areas
    that it touches of the colour that most of it has. Each pixel has a logit.
    """

    def __init__(
        self, size: int = 128, name: str = "flood-0", precision: Precision = "fp32"
    ) -> None:
        self.id = name
        self.precision = precision
        self.device, self.batch = "cpu", 4
        self.size = size
        self.logits_size = size
        self.feature_shape = (3, size, size)
        self.encoded = 0

    def encode(self, images: Images) -> Features:
        self.encoded += len(images)
        return images.astype(np.float16)

    def decode(
        self,
        features: Features | Sequence[Features],
        prompts: Sequence[TilePrompt],
        *,
        multimask: bool,
        min_score: float | None = None,
    ) -> tuple[Floats, Floats]:
        images = images_of(features, prompts)
        masks = np.stack(list(map(self._mask, images, prompts)))  # (P, s, s)
        logits = np.where(masks, SURE, -SURE).astype(np.float32)[:, None]  # (P, 1, s, s)
        if not multimask:
            return logits, np.ones((len(prompts), 1), np.float32)
        smaller = np.stack([ndimage.binary_erosion(mask) for mask in masks])
        larger = np.stack([ndimage.binary_dilation(mask) for mask in masks])
        others = [np.where(m, SURE, -SURE).astype(np.float32)[:, None] for m in (smaller, larger)]
        scores = np.tile(np.float32([0.5, 0.9, 0.7]), (len(prompts), 1))
        return np.concatenate([others[0], logits, others[1]], axis=1), scores

    def _mask(self, features: Features, prompt: TilePrompt) -> np.ndarray:
        if prompt.mask is not None and not len(prompt.points):
            rough = prompt.mask > 0
            colours, counts = np.unique(features[:, rough], axis=1, return_counts=True)
            main = colours[:, counts.argmax()]
            areas, _ = ndimage.label((features == main[:, None, None]).all(0))
            return np.isin(areas, areas[rough & (areas > 0)])
        if prompt.box is not None:
            xmin, ymin, xmax, ymax = prompt.box + 0.5
            x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
            cols, rows = np.arange(self.size) + 0.5, np.arange(self.size) + 0.5
            inside = ((rows > ymin) & (rows < ymax))[:, None] & (cols > xmin) & (cols < xmax)
            return self._alike(features, x, y) & inside
        mask = np.zeros((self.size, self.size), bool)
        for label in (1, 0):
            for x, y in prompt.points[prompt.labels == label] + 0.5:
                areas, _ = ndimage.label(self._alike(features, x, y))
                mask[areas == areas[int(y), int(x)]] = bool(label)
        return mask

    def _alike(self, features: Features, x: float, y: float) -> np.ndarray:
        last = self.size - 1
        colour = features[:, min(int(y), last), min(int(x), last)]
        return (features == colour[:, None, None]).all(0)


def images_of(
    features: Features | Sequence[Features], prompts: Sequence[TilePrompt]
) -> Sequence[Features]:
    """The features of each prompt's image, as `Model.decode` takes them."""
    return [features] * len(prompts) if isinstance(features, np.ndarray) else features


def write_raster(
    path: Path,
    data: np.ndarray,
    *,
    crs: str | None = "EPSG:32633",
    transform: Affine = NORTH_UP,
    **options: object,
) -> Path:
    """Write (H, W) or (C, H, W) as a GeoTIFF; 1 m pixels from `NORTH_UP`'s corner by default."""
    bands = data if data.ndim == 3 else data[None]
    count, height, width = bands.shape
    profile = {
        "driver": "GTiff", "count": count, "height": height, "width": width,
        "dtype": bands.dtype.name, "crs": crs, "transform": transform, **options,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
    return path


def discs(shape: tuple[int, int], *places: tuple[int, int, int]) -> np.ndarray:
    """Discs of 200, 201, ... on 20: each (row, col, radius)."""
    image = np.full(shape, 20, np.uint8)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    for number, (row, col, radius) in enumerate(places):
        image[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = 200 + number
    return image


def tiles_of(store: FeatureStore) -> dict[Any, Any]:
    """Whatever a store says of every tile, byte for byte."""
    return {
        (tile.scale, tile.index): (
            store.status(tile),
            store.valid(tile).tobytes(),
            store[tile].tobytes() if store.status(tile) == "done" else b"",
        )
        for grid in store.grids
        for tile in set(grid) - set(store.missing(grid.scale))
    }
